"""Magnitude pruning while training, by tfmot's `prune_low_magnitude`.

Weights of least |w| are set to zero step by step, more and more of them along a cubic
ramp, while training goes on. Zhu & Gupta 2017, "To prune, or not to prune",
arXiv:1710.01878, equation 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfopt.backend import PruneLowMagnitude, keras, tfmot
from tfopt.compress.base import Context, Outcome, Pass, Stage, copy_model
from tfopt.model import anatomy

_PRUNABLE = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)


@keras.utils.register_keras_serializable(package="tfopt")
class Float32Pruning(PruneLowMagnitude):
    """Tfmot's wrapper, masking in float32 under mixed precision too.

    Tfmot's own reads the weights as bfloat16, in which many are equal, and writes them
    back so rounded at every step: small updates are lost.
    """

    def build(self, input_shape):
        """Gives the masking the variables themselves, not their cast views."""
        super().build(input_shape)
        self.pruning_obj._pruning_vars = [
            tuple(v._variable if hasattr(v, "true_dtype") else v for v in group)
            for group in self.pruning_vars]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Magnitude(Pass):
    """Prunes kernels by magnitude to a sparsity, the same in every layer.

    Of a BERT, the six projections of every encoder layer are pruned, and embeddings
    and head are not; of any other functional model, every Dense and Conv kernel.

        pruning = tfopt.Magnitude(final_sparsity=0.5, end_step=2000)
        wrapped = pruning.wrap(model)
        wrapped.compile(...)
        wrapped.fit(data, callbacks=pruning.callbacks())
        small = pruning.strip(wrapped)

    Attributes:
        final_sparsity: fraction of each kernel that ends as zero, in (0, 1).
        initial_sparsity: fraction at `begin_step`, in [0, final_sparsity].
        begin_step: optimizer step of the first pruning, >= 0.
        end_step: step at which the final sparsity is reached, above `begin_step`. In
            a recipe it may be left out: half of the run's steps then, the other half
            being for recovery.
        frequency: steps between two prunings.
        power: exponent of the ramp.
    """

    final_sparsity: float
    initial_sparsity: float = 0.0
    begin_step: int = 0
    end_step: int | None = None
    frequency: int = 20
    power: float = 3.0

    stage = Stage.WEIGHTS
    needs = ("train",)

    def __post_init__(self):
        """Checks the ranges.

        Raises:
            ValueError: a field is out of its range.
        """
        rules = {
            "final_sparsity": (0 < self.final_sparsity < 1, "a fraction in (0, 1)"),
            "initial_sparsity": (0 <= self.initial_sparsity <= self.final_sparsity,
                                 "a fraction from 0 to `final_sparsity`"),
            "begin_step": (self.begin_step >= 0, "at least 0"),
            # tfmot divides by end - begin and prunes by nan where they are equal.
            "end_step": (self.end_step is None or self.end_step > self.begin_step,
                         f"above begin_step={self.begin_step}"),
            # tfmot prunes at begin + k * frequency only: else the last step of the
            # ramp would be passed over, and the final sparsity never reached.
            "frequency": (self.frequency >= 1 and (
                self.end_step is None
                or (self.end_step - self.begin_step) % self.frequency == 0),
                f"a divisor of end_step - begin_step, of {self.begin_step} and "
                f"{self.end_step}"),
            "power": (self.power > 0, "above 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"`{name}` must be {rule}. Received: "
                                 f"{name}={getattr(self, name)!r}")

    @classmethod
    def example(cls) -> Magnitude:
        """Half of the weights, within two steps."""
        return cls(final_sparsity=0.5, end_step=2, frequency=1)

    def resolve(self, context: Context) -> Magnitude:
        """Ends the ramp at half of the run, where no step is given.

        Raises:
            ValueError: the run ends before the ramp does.
        """
        total = context.train.steps_per_epoch * context.settings.epochs
        chosen = self
        if self.end_step is None:
            ramp = max(1, total // 2 - self.begin_step)
            frequency = min(self.frequency, max(1, ramp // 4))
            chosen = dataclasses.replace(
                self, frequency=frequency,
                end_step=self.begin_step + max(1, ramp // frequency) * frequency)
        if chosen.end_step > total:
            raise ValueError(
                f"The ramp must end within the run's {total} steps. Received: "
                f"begin_step={self.begin_step}, end_step={chosen.end_step}")
        return chosen

    def wrap(self, model: keras.Model) -> keras.Model:
        """Copies the model and wraps its prunable layers.

        Args:
            model: functional, and not wrapped already; left as it is.

        Returns:
            The wrapped copy, not compiled.

        Raises:
            ValueError: no layer can be pruned, the model is wrapped already, or
                `end_step` is not given.
        """
        if self.end_step is None:
            raise ValueError("`end_step` must be given to prune outside a recipe. "
                             "Received: end_step=None")
        if any(isinstance(layer, PruneLowMagnitude) for layer in model.layers):
            raise ValueError("A wrapped model must be stripped before it is wrapped "
                             f"again. Received: {model.name!r}, wrapped")
        names = _prunable(model)
        if not names:
            raise ValueError(
                "The model must have a Dense or Conv layer to prune. Received: layers "
                f"{[layer.name for layer in model.layers][:8]}")
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=self.initial_sparsity, final_sparsity=self.final_sparsity,
            begin_step=self.begin_step, end_step=self.end_step, power=self.power,
            frequency=self.frequency)

        def wrap_layer(layer):
            if layer.name not in names:
                return layer
            return Float32Pruning(layer, pruning_schedule=schedule)

        # The copy first: tfmot's wrappers share variables with the model they are
        # given, and training them would train the original.
        return keras.models.clone_model(copy_model(model), clone_function=wrap_layer)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Tfmot's callback that counts the steps and masks at each epoch's end."""
        return [tfmot.sparsity.keras.UpdatePruningStep()]

    def strip(self, model: keras.Model) -> keras.Model:
        """Masks the weights a last time and takes the wrappers off.

        Args:
            model: from `wrap`, trained.

        Returns:
            The plain model, its layers under their own names.

        Raises:
            ValueError: the model was not wrapped.
        """
        wrappers = [layer for layer in model.layers
                    if isinstance(layer, PruneLowMagnitude)]
        if not wrappers:
            raise ValueError("Only a model from `wrap` can be stripped. Received: "
                             f"layers {[layer.name for layer in model.layers][:8]}")
        for layer in wrappers:
            for weight, mask, _ in layer.pruning_vars:
                weight.assign(weight * mask)
        return copy_model(tfmot.sparsity.keras.strip_pruning(model))

    def settle_step(self) -> int:
        """The end of the ramp."""
        return self.end_step

    def outcome(self, before: keras.Model, after: keras.Model) -> Outcome:
        """Names the pruned layers and counts the nonzeros that must be left."""
        names = _prunable(before)
        weights = {layer.name: layer.get_weights()[0] for layer in after.layers
                   if layer.name in names}
        # tfmot rounds in float32, and leaves each kernel at least one weight.
        density = np.float32(1) - np.float32(self.final_sparsity)
        kept = sum(max(1, np.round(np.float32(w.size) * density))
                   for w in weights.values())
        others = sum(np.count_nonzero(w) for w in after.get_weights()) - sum(
            np.count_nonzero(w) for w in weights.values())
        skipped = {layer.name: "not among the kernels that are pruned"
                   for layer in before.layers
                   if layer.name not in names and layer.weights}
        return Outcome(model=after, touched=tuple(names), skipped=skipped,
                       figures={"nonzeros": float(kept + others)})


def _prunable(model: keras.Model) -> list[str]:
    layers = anatomy.encoder_dense(model) if anatomy.is_bert(model) else model.layers
    return [layer.name for layer in layers if isinstance(layer, _PRUNABLE)]
