"""What all pruning passes share: when, how much, which and where.

A pass of `passes/` adds why: the name of its score. Masks are chosen between two steps
by the callback `PruningStep`; the step itself only multiplies by them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tfopt import checks, functional
from tfopt.backend import keras, tfmot
from tfopt.compress import layer_selection as layers
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_nonzeros
from tfopt.compress.pruning import masked_layer, masks
from tfopt.compress.pruning.callbacks import PruningStep
from tfopt.compress.pruning.schedules import KINDS, Schedule
from tfopt.compress.pruning.scores import SCORES
from tfopt.types import Expression, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning(Pass):
    """Sets weights to zero while training, more and more of them.

    Of a BERT, the six projections of every encoder layer are pruned; of any other
    functional model, every Dense and Conv kernel.

    Attributes:
        final_sparsity: fraction of the weights that end as zero, in (0, 1). An N:M
            pattern knows its own, and it may be left out.
        initial_sparsity: fraction at `begin_step`, in [0, final_sparsity].
        schedule: how it rises: "polynomial", "exponential", "constant" or "one_shot"
            (`compress.pruning.schedules.Schedule`).
        begin_step: optimizer step of the first pruning, >= 0.
        end_step: step of the last one, >= `begin_step`.
        begin_fraction: in a recipe, the first pruning as a fraction of the run's steps.
        end_fraction: in a recipe, the last one; used where `end_step` is not given.
        frequency: steps between two prunings.
        power: exponent of the polynomial.
        pattern: which weights go together (`compress.pruning.masks.Pattern`).
        pooling: "avg" or "max", how the scores of such weights become one.
        allocation: "uniform", the same share of every kernel; "global", one threshold
            for all kernels; "erdos_renyi_kernel", more of the large ones.
        sparsities: regular expression of layer names -> a final sparsity of their own,
            the first that matches; 0 leaves a layer as it is.
        only: regular expressions; the layers to prune, Embedding among them.
        leave: regular expressions; layers to leave as they are.
    """

    final_sparsity: float = None  # type: ignore[assignment]  # a pattern may say it
    initial_sparsity: float = 0.0
    schedule: str = "polynomial"
    begin_step: int | None = None
    end_step: int | None = None
    begin_fraction: float = 0.0
    end_fraction: float = 0.5
    frequency: int = 100
    power: float = 3.0
    pattern: str = "unstructured"
    pooling: str = "avg"
    allocation: str = "uniform"
    sparsities: Mapping[Expression, float] = dataclasses.field(default_factory=dict)
    only: tuple[Expression, ...] = ()
    leave: tuple[Expression, ...] = ()

    stage = Stage.WEIGHTS
    needs = ("train",)
    score: ClassVar[str]

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a field is out of its range, or two contradict each other.
        """
        super().__post_init__()
        pattern = masks.Pattern(self.pattern)
        if pattern.kept_of and self.final_sparsity is None:
            object.__setattr__(self, "final_sparsity", pattern.sparsity)
        fixed = pattern.sparsity
        check_fields(self, {
            "final_sparsity": (
                self.final_sparsity is not None and 0 < self.final_sparsity < 1
                and fixed in (None, self.final_sparsity),
                f"{fixed}, that of the pattern {self.pattern!r}" if fixed
                else "a fraction in (0, 1)"),
            "begin_fraction": (0 <= self.begin_fraction <= 1, "in [0, 1]"),
            "end_fraction": (self.begin_fraction <= self.end_fraction <= 1,
                             f"from begin_fraction={self.begin_fraction} to 1"),
            "schedule": (self.schedule in KINDS, f"one of {KINDS}"),
            "pooling": (self.pooling in masks.POOLINGS, f"one of {masks.POOLINGS}"),
            "allocation": (
                self.allocation in masks.ALLOCATIONS
                and (self.allocation == "uniform" or not (fixed or self.sparsities)),
                f"one of {masks.ALLOCATIONS}, and 'uniform' with an N:M pattern or "
                "with `sparsities`"),
            "sparsities": (
                all(0 <= value < 1 for value in self.sparsities.values())
                and not (fixed and self.sparsities),
                "fractions in [0, 1), and none with an N:M pattern"),
        })
        self._schedule(end_step=self.begin_step or 0)  # checks the other fields
        if self.end_step is not None:
            self._schedule()

    @classmethod
    def example(cls) -> Pruning:
        """Half of the weights, within two steps."""
        return cls(final_sparsity=0.5, begin_step=1, end_step=2, frequency=1)

    def resolve(self, context: Context) -> Pruning:
        """Turns fractions of the run into steps, where no step is given.

        Raises:
            ValueError: the run ends before the pruning does.
        """
        total = context.training_set.steps_per_epoch * context.settings.epochs
        begin, end = self.begin_step, self.end_step
        if begin is None:
            begin = round(self.begin_fraction * total)
        if end is None:
            end = max(begin, round(self.end_fraction * total))
        if end > total:
            raise ValueError(f"Pruning must end within the run's {total} steps. "
                             f"Received: begin_step={begin}, end_step={end}")
        # A ramp of few steps is climbed in four at least.
        frequency = self.frequency if self.end_step is not None else min(
            self.frequency, max(1, (end - begin) // 4))
        return dataclasses.replace(self, begin_step=begin, end_step=end,
                                   frequency=frequency)

    def wrap(self, model: keras.Model) -> keras.Model:
        """Copies the model and wraps the layers to prune.

        Args:
            model: functional, and not wrapped already; left as it is.

        Returns:
            The wrapped copy, not compiled.

        Raises:
            ValueError: no layer can be pruned, an expression matches none, the pattern
                does not fit a kernel, the model is wrapped already, a layer is used
                twice, or `end_step` is not given.
        """
        if self.end_step is None:
            raise ValueError("`end_step` must be given to prune outside a recipe. "
                             "Received: end_step=None")
        if SCORES[self.score].gather and self._schedule().sparsity(0) > 0:
            raise ValueError(
                f"The score {self.score!r} is gathered while training: the first "
                "pruning must be at step 1 or later. Received: "
                f"begin_step={self.begin_step}")
        checks.check_stripped(model)
        # The copy first: a wrapper shares the variables of the layer it is given.
        copy = functional.copy_model(model)
        targets = self.targets(copy)
        layers.warn_of_unreached(copy, self.name(), self.only)
        for name, shape in targets.items():
            masks.Pattern(self.pattern).check(name, shape)
            masked_layer.check_wrappable(copy.get_layer(name), self.score)

        def wrap_layer(layer):
            if layer.name not in targets:
                return layer
            return masked_layer.Pruned(layer, score=self.score)

        return keras.models.clone_model(copy, clone_function=wrap_layer)

    def prune_at_once(self, model: keras.Model) -> keras.Model:
        """Prunes to the final sparsity without training.

        Args:
            model: as `wrap` takes it.

        Returns:
            A pruned copy.

        Raises:
            ValueError: as `wrap`; or the score is one that training gathers.
        """
        now = dataclasses.replace(self, schedule="one_shot", begin_step=0, end_step=0,
                                  initial_sparsity=0.0)
        wrapped = now.wrap(model)
        masked_layer.set_masks(masked_layer.wrappers_of(wrapped), now.choose_masks, 0)
        return now.strip(wrapped)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The callback that chooses the masks."""
        return [PruningStep(self.choose_masks, self._schedule(), self.count_zeros)]

    def strip(self, model: keras.Model) -> keras.Model:
        """Masks the weights for good and takes the wrappers off.

        Args:
            model: from `wrap`, trained.

        Returns:
            The plain model, its layers under their own names.

        Raises:
            ValueError: the model was not wrapped, or is not pruned to the end.
        """
        wrappers = masked_layer.wrappers_of(model)
        masked_layer.check_wrapped(wrappers, model, "can be stripped")
        shapes = {name: tuple(one.kernel.shape) for name, one in wrappers.items()}
        due = self._zeros(shapes, self.final_sparsity) or masks.least_zeros(
            shapes, self.final_sparsity, masks.Pattern(self.pattern))
        masked_layer.check_pruned(wrappers, model, due, self._schedule().last_step)
        for wrapper in wrappers.values():
            wrapper.kernel.assign(wrapper.kernel * wrapper.mask)
        return functional.copy_model(tfmot.sparsity.keras.strip_pruning(model))

    def first_valid_step(self) -> int:
        """The step of the last pruning."""
        return self._schedule().last_step

    def targets(self, model: keras.Model) -> dict[str, tuple[int, ...]]:
        """The layers to prune -> the shapes of their kernels.

        Raises:
            ValueError: there is none, or an expression matches no layer.
        """
        chosen = layers.choose_layers(model, self.only, self.leave,
                                      tuple(self.sparsities))
        return {layer.name: tuple(layers.kernel_of(layer).shape)
                for layer in chosen if self._own(layer.name) > 0}

    def choose_masks(self, scores: Mapping[str, np.ndarray],
                     step: int) -> dict[str, np.ndarray]:
        """The masks at a step.

        Args:
            scores: layer -> <float>[..., K, N] of every wrapped layer.
            step: optimizer steps done.

        Returns:
            layer -> <float32>[..., K, N] of ones and zeros.
        """
        sparsity = self._schedule().sparsity(step)
        shapes = {name: score.shape for name, score in scores.items()}
        shares = sparsity if self.allocation == "global" else self._shares(
            shapes, sparsity)
        return masks.choose(scores, shares, masks.Pattern(self.pattern), self.pooling)

    def count_zeros(self, wrappers: Mapping, step: int) -> dict[str, int] | None:
        """Layer -> how many weights go; None where groups do, or all have one bound."""
        if self.pattern != "unstructured":
            return None
        shapes = {name: tuple(one.kernel.shape) for name, one in wrappers.items()}
        return self._zeros(shapes, self._schedule().sparsity(step))

    def outcome(self, before: keras.Model, after: keras.Model) -> Outcome:
        """Names the pruned layers and counts the nonzeros that must be left."""
        targets = self.targets(before)
        zeros, figures = self._zeros(targets, self.final_sparsity), {}
        if zeros is not None:
            left = sum(int(np.prod(targets[name])) - zeros[name] for name in targets)
            others = count_nonzeros(after) - sum(
                np.count_nonzero(layers.kernel_of(after.get_layer(name)).numpy())
                for name in targets)
            figures["nonzeros"] = float(left + others)
        return Outcome(model=after, touched=tuple(targets),
                       skipped=layers.skipped(before, tuple(targets)), figures=figures)

    def _schedule(self, **changes) -> Schedule:
        return Schedule(**{
            "kind": self.schedule, "final_sparsity": self.final_sparsity,
            "initial_sparsity": self.initial_sparsity, "frequency": self.frequency,
            "begin_step": self.begin_step or 0, "end_step": self.end_step,
            "power": self.power, **changes})

    def _zeros(self, shapes, sparsity: float) -> dict[str, int] | None:
        """Layer -> how many weights go; None where all have one bound."""
        if self.allocation == "global":
            return None
        shares, pattern = self._shares(shapes, sparsity), masks.Pattern(self.pattern)
        return {name: masks.zeros_in(shapes[name], shares[name], pattern)
                for name in shapes}

    def _own(self, layer: str) -> float:
        """A layer's own final sparsity."""
        return next((sparsity for expression, sparsity in self.sparsities.items()
                     if re.search(expression, layer)), self.final_sparsity)

    def _shares(self, shapes, sparsity: float) -> dict[str, float]:
        """Each layer's share of a sparsity that holds for all of them."""
        if self.allocation == "erdos_renyi_kernel":
            return masks.erdos_renyi_kernel(shapes, sparsity)
        done = sparsity / self.final_sparsity
        return {name: done * self._own(name) for name in shapes}
