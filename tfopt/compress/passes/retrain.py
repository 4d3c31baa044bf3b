"""Trains the model as it is, from the teacher; then it teaches, too.

The first step of two-step distillation, as Mirzadeh et al. 2020, "teacher assistant",
arXiv:1902.03393, have it: a large teacher, then a student of its own size as the
teacher's assistant, then what is cut out of that. A large teacher of another family has
no hidden states that the student's could follow; the model that it made of the whole
student has. The passes behind this one learn logits from the teacher, and hidden states
and relations, where they have a weight, from what this one left.
"""

from __future__ import annotations

import dataclasses

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_parameters
from tfopt.functional import copy_model
from tfopt.types import check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain(Pass):
    """Trains all of the model, by its labels or a teacher, and changes no size.

    Attributes:
        epochs: of training; None for the settings'.
        teaches: whether the passes behind learn hidden states from what it leaves.
    """

    epochs: int | None = None
    teaches: bool = True

    stage = Stage.SHAPE
    needs = ("train",)
    provides = ("states_teacher",)

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_fields(self, {"epochs": (self.epochs is None or self.epochs >= 1,
                                       "at least 1, or None")})

    @classmethod
    def example(cls) -> Retrain:
        """An epoch."""
        return cls(epochs=1)

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Trains the model, and hands a copy on as a teacher of hidden states.

        Raises:
            ValueError: there is nothing to train, or the teacher does not fit it.
        """
        if not model.trainable_weights:
            raise ValueError(
                f"The pass {self.name()!r} needs layers with weights. Received: "
                f"{[layer.name for layer in model.layers[:8]]}")
        # Else the teacher reads the same tokens, and has states itself.
        logits_alone = context.teacher is not None and context.keeps_logits
        own = dataclasses.replace(context, distillation=dataclasses.replace(
            context.distillation, hidden_weight=0.0, relations_weight=0.0)
        ) if logits_alone else context
        own.fit(model, self.epochs)
        provided = {}
        if self.teaches and logits_alone:
            with model.distribute_strategy.scope():
                provided["states_teacher"] = copy_model(model)
        return Outcome(
            model=model, provides=provided,
            touched=tuple(layer.name for layer in model.layers if layer.weights),
            figures={"parameters": float(count_parameters(model))})
