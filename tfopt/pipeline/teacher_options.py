"""What a run can be told of a teacher: who it is, what is learned, on which texts.

Imports no TensorFlow but within methods.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfopt.pipeline.option import Options, option
from tfopt.types import PathLike, check_fields

if TYPE_CHECKING:
    from tfopt.train import Distillation

AUTO = "auto"  # is to be found by trials


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher(Options):
    """Whether, and what, to learn from a teacher."""

    teacher: PathLike | None = option(
        None, "Fine-tuned model to learn from, as `finetune` leaves it; where logits "
        "alone are learned, of any family and vocabulary. Left out, where another flag "
        "asks for a teacher: the baseline.", flag="teacher_dir")
    temperature: float | None = option(None, "By which logits are divided (2).",
                                       flag="distil_temperature")
    soft_weight: float | None = option(
        None, "Weight in the loss of the teacher's logits (1 where there is a "
        "teacher).", flag="distil_soft_weight")
    hard_weight: str | float | None = option(
        None, "Weight in the loss of the labels, beside a teacher (0.5); auto tries "
        "several on a held-out part of train.", flag="distil_hard_weight")
    hidden_weight: float | None = option(
        None, "Weight in the loss of the teacher's hidden states (0).",
        flag="distil_hidden_weight")
    relations_weight: float | None = option(
        None, "Weight in the loss of how the teacher relates tokens in its last layer "
        "(0).", flag="distil_relations_weight")
    layers: str | None = option(
        None, "Which layers' hidden states follow one another: at even steps (so if "
        "left out), or for each of the teacher's the student's nearest.",
        flag="distil_layers", choices=("even", "nearest"))
    cache_teacher_logits: bool = option(
        False, "Run the teacher once over all texts, not in every step; for logits "
        "alone. A teacher of another vocabulary does so in any case.")
    logits_dir: PathLike | None = option(
        None, "Directory in which the teacher's logits are kept, for other runs of the "
        "same texts too. Left out: within the run, until it is done.",
        flag="teacher_logits_dir")
    unlabelled: PathLike | None = option(
        None, "More texts, which the teacher alone judges: .txt, one a line, or .tsv, "
        ".csv, .jsonl with the columns of texts.", flag="unlabelled_file")
    augment: str | int = option(
        0, "Changed copies of each text of the train file, which the teacher alone "
        "judges; auto tries 0, 1, 4 and 12 on a held-out part of train.")
    augment_model: PathLike | None = option(
        None, "Checkpoint with the head of masked language modelling, which finds the "
        "words that replace others in copies. Left out: the teacher, where it has one; "
        "else any words of the texts.", flag="augment_model_dir")

    def __post_init__(self):
        """Makes numbers of what the command line gives as texts.

        Raises:
            ValueError: a value is none, or out of its range.
        """
        super().__post_init__()
        for name, kind, rule in (("augment", int, "a whole number from 0, or 'auto'"),
                                 ("hard_weight", float, "a number, or 'auto'")):
            value = getattr(self, name)
            if value in (AUTO, None):
                continue
            try:
                number = kind(value)
            except ValueError:
                number = -1
            check_fields(self, {name: (kind is float and isinstance(value, float)
                                       or number >= 0, rule)})
            object.__setattr__(self, name, number)
        if self.augment_model is not None and not self.augment:
            raise ValueError("--augment_model_dir finds words for copies: give "
                             "--augment. Received: --augment_model_dir="
                             f"{self.augment_model}, --augment={self.augment}")

    @property
    def copies(self) -> int:
        """How many copies are made; none while their number is to be found."""
        return self.augment if isinstance(self.augment, int) else 0

    @property
    def keeps_logits(self) -> bool:
        """Whether the teacher is to run once over all texts."""
        return self.cache_teacher_logits or self.logits_dir is not None

    def distillation(self, recipes: Distillation | None = None, states: bool = False
                     ) -> Distillation | None:
        """What is to be learned from a teacher; None without one.

        Args:
            recipes: what a recipe says; fields that are given replace its own.
            states: whether a pass of the recipe makes a teacher of hidden states.

        Raises:
            ValueError: what needs a teacher is given without one, or is wrong.
        """
        from tfopt.train import Distillation

        given = {name: getattr(self, name) for name in (
            "soft_weight", "hard_weight", "hidden_weight", "relations_weight",
            "temperature", "layers") if getattr(self, name) not in (None, AUTO)}
        if (recipes is None and not given and self.teacher is None
                and self.hard_weight != AUTO):
            for flag, value in (("unlabelled_file", self.unlabelled),
                                ("augment", self.augment),
                                ("cache_teacher_logits", self.cache_teacher_logits),
                                ("teacher_logits_dir", self.logits_dir)):
                if value:
                    raise ValueError(
                        f"--{flag} needs a teacher: give --teacher_dir, a --distil_... "
                        "flag or a recipe that distils. Received: "
                        f"--{flag}={value}")
            return None
        found = dataclasses.replace(recipes or Distillation(), **given)
        if self.keeps_logits and found.uses_layers and not states:
            raise ValueError(
                "--cache_teacher_logits and --teacher_logits_dir keep logits alone; "
                "hidden states and relations need the teacher in every step. Received: "
                f"hidden_weight={found.hidden_weight}, "
                f"relations_weight={found.relations_weight}")
        return found
