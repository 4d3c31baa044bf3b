"""Trains a model to be quantized: it computes as its `.tflite` will.

After Jacob et al. 2018, arXiv:1712.05877, with a scale for each output channel of a
kernel and each row of a table, in the wrappers of tfmot's `quantize_apply`.
"""

from __future__ import annotations

import dataclasses

from tfopt import checks, functional
from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_parameters
from tfopt.compress.layer_selection import (
    check_expressions,
    matches,
    skipped,
    warn_of_unreached,
)
from tfopt.compress.pruning.callbacks import KeepMask
from tfopt.compress.pruning.masked_layer import check_wrapped
from tfopt.compress.qat import configs
from tfopt.compress.qat.callbacks import QuantizationStep
from tfopt.compress.qat.configs import PointsConfig
from tfopt.compress.qat.points import points_of
from tfopt.export import schemes
from tfopt.model import quantized_layers_of
from tfopt.model.quantized_layers import QUANTIZED
from tfopt.types import Expression, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationAware(Pass):
    """Rounds weights and activations while training, as an export will.

    What is rounded follows the export: kernels and tables in all; of activations, with
    "dynamic_..." each token's row as a product takes it, with "static_wi8_ai8" what
    products take and give (of those of an ffn each token's row), with
    "integer_wi8_ai8" also what additions, LayerNorm, GELU, softmax and attention give.

    Attributes:
        scheme: the export to train for, one of `schemes()`.
        begin_step: optimizer step before which static ranges are only observed, >= 0.
        freeze_step: step from which ranges stay, above `begin_step`; None for never.
        begin_fraction: in a recipe, the same as a fraction of the run's steps.
        freeze_fraction: in a recipe, `freeze_step` as such a fraction.
        only: regular expressions; the layers to quantize.
        leave: regular expressions; layers to leave in float.
    """

    scheme: str = "dynamic_wi8_afp32"
    begin_step: int | None = None
    freeze_step: int | None = None
    begin_fraction: float = 0.0
    freeze_fraction: float = 1.0
    only: tuple[Expression, ...] = ()
    leave: tuple[Expression, ...] = ()

    stage = Stage.NUMERICS
    needs = ("train",)
    # Rounding makes of the last bit of a sum over replicas a step of the grid.
    same_on_replicas = False

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a field is out of its range.
        """
        super().__post_init__()
        begin = self.begin_step or 0
        check_fields(self, {
            "scheme": (self.scheme in self.schemes(), f"one of {self.schemes()}"),
            "begin_step": (begin >= 0, "at least 0"),
            "freeze_step": (self.freeze_step is None or self.freeze_step > begin,
                            f"above begin_step={begin}"),
            "begin_fraction": (0 <= self.begin_fraction < 1, "a fraction in [0, 1)"),
            "freeze_fraction": (self.begin_fraction < self.freeze_fraction <= 1,
                                f"above begin_fraction={self.begin_fraction}, to 1"),
        })

    @staticmethod
    def schemes() -> tuple[str, ...]:
        """The exports that can be trained for."""
        return schemes.trainable()

    def resolve(self, context: Context) -> QuantizationAware:
        """Turns fractions of the run into steps, where no step is given.

        Raises:
            ValueError: the run ends before rounding begins.
        """
        total = context.training_set.steps_per_epoch * context.settings.epochs
        begin, freeze = self.begin_step, self.freeze_step
        if begin is None:
            begin = round(self.begin_fraction * total)
        if freeze is None and self.freeze_fraction < 1:
            freeze = max(begin + 1, round(self.freeze_fraction * total))
        if begin >= total:
            raise ValueError(f"Rounding must begin within the run's {total} steps. "
                             f"Received: begin_step={begin}")
        return dataclasses.replace(self, begin_step=begin, freeze_step=freeze)

    def wrap(self, model: keras.Model) -> keras.Model:
        """Copies the model and wraps the layers to quantize.

        Args:
            model: functional, of plain layers, such as a BERT; left as it is.

        Returns:
            The wrapped copy, not compiled; the wrappers have their layers' names.

        Raises:
            ValueError: the model is quantized already, no layer can be, or an
                expression matches none.
        """
        model = functional.flat(model)
        if quantized_layers_of(model) or configs.wrappers_of(model):
            raise ValueError("The model is quantized already; `tfopt.model.plain_copy` "
                             f"gives it without. Received: {model.name!r}")
        checks.check_stripped(model)
        warn_of_unreached(model, self.name(), self.only, tuple(QUANTIZED))
        return configs.annotate(model, self._configs(model))

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The one that sets the phases, and one that keeps a pruned model's zeros."""
        return [QuantizationStep(self.begin_step or 0, self.freeze_step),
                KeepMask(required=False)]

    def strip(self, model: keras.Model) -> keras.Model:
        """Fixes the ranges, rounds the weights and takes the wrappers off.

        Args:
            model: from `wrap`, trained.

        Returns:
            The model in layers of `model.quantized_layers`, which compute as the file
            does; `tfopt.convert` gives that file the same integers.

        Raises:
            ValueError: the model was not wrapped, or no ranges were found for it.
        """
        check_wrapped(configs.wrappers_of(model), model, "can be stripped")
        configs.check_trained(model, self.begin_step or 0)
        return configs.finalize(model)

    def first_valid_step(self) -> int:
        """The step at which rounding begins."""
        return self.begin_step or 0

    def outcome(self, before: keras.Model, after: keras.Model) -> Outcome:
        """Names the quantized layers."""
        touched = tuple(quantized_layers_of(after))
        return Outcome(model=after, touched=touched,
                       skipped=skipped(before, touched, tuple(QUANTIZED)),
                       figures={"parameters": float(count_parameters(before))})

    def _configs(self, model: keras.Model) -> dict[str, PointsConfig]:
        """The layers to quantize -> what is rounded in each."""
        able = [layer for layer in model.layers if type(layer) in QUANTIZED]
        check_expressions((*self.only, *self.leave), able, " that can be quantized")
        scheme, found = schemes.get(self.scheme), {}
        for layer in able:
            config = points_of(scheme, layer)
            if (config is not None and not matches(self.leave, layer.name)
                    and (not self.only or matches(self.only, layer.name))):
                found[layer.name] = config
        if not found:
            raise ValueError("The model must have a Dense or Embedding layer to "
                             "quantize. Received: layers "
                             f"{[layer.name for layer in model.layers][:8]}")
        return found
