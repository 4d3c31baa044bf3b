"""Removes the rows of the token embedding that no text to learn from uses.

A model of one task reads a part of its vocabulary, and the table of a small BERT is
half of its weights or more (Abdaoui et al. 2020, "Load what you need: smaller versions
of multilingual BERT", arXiv:2010.05609). Rows that stay are numbered anew, so that the
tokenizer changes with the model: the outcome provides the one of the rows that stay. A
pass sees ids, not words; which of these can go without a word becoming unknown only the
tokenizer knows, the context's resource of that name (`data.Tokenizer`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfopt.backend import keras, own_objects, tf
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_parameters
from tfopt.compress.teacher import check_teacher
from tfopt.model import config_of
from tfopt.model.anatomy import Anatomy
from tfopt.types import INPUT_NAMES, BatchSource

_IDS = INPUT_NAMES[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary(Pass):
    """Keeps the rows that train's texts use, and those that cannot be spared.

    Texts of these are encoded to the same pieces as before, and their logits are the
    same. Other words are cut into smaller pieces; in batches of dev that were encoded
    before, the unknown token stands for a row that went.
    """

    stage = Stage.SHAPE
    needs = ("train", "tokenizer")
    provides = ("train", "dev", "transfer_set", "teacher", "states_teacher",
                "tokenizer")

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Removes the rows, and numbers the context's token ids anew.

        Raises:
            ValueError: the model or the teacher is no BERT of these tokens, or all of
                the rows are used.
        """
        rows = config_of(model).vocab_size
        removable = context.get("tokenizer").removable()
        _check(removable, rows)
        sources = {name: batches for name in ("train", "transfer_set")
                   if (batches := getattr(context, name)) is not None}
        gone = set(removable).difference(*map(_used, sources.values()))
        if not gone:
            raise ValueError("There must be rows that no text of train uses. Received: "
                             f"{rows} rows, all in use or not to be spared")
        kept = [row for row in range(rows) if row not in gone]
        places = np.zeros(rows, np.int32)
        places[kept] = np.arange(len(kept))
        for row in gone:
            places[row] = places[removable[row]]

        changes: dict[str, Any] = {
            **{name: Renumbered(batches, places)
               for name, batches in sources.items()},
            "tokenizer": context.get("tokenizer").keeping(kept)}
        if context.dev is not None:
            changes["dev"] = Renumbered(context.dev, places)
        if context.teacher is not None and context.read_by_teacher is None:
            config_of(context.teacher)  # of no other could it cut the rows
            check_teacher(context.teacher, model)
            with context.teacher.distribute_strategy.scope():
                changes["teacher"] = narrow(context.teacher, kept)
        if context.states_teacher is not None:
            with context.states_teacher.distribute_strategy.scope():
                changes["states_teacher"] = narrow(context.states_teacher, kept)
        return Outcome(
            model=narrow(model, kept),
            touched=(Anatomy.of(model).embeddings.token.name,),
            figures={"parameters": float(count_parameters(model) - len(gone)
                                         * config_of(model).embedding_width)},
            notes=(f"{len(kept)} of {rows} rows of the token embedding stay",),
            provides=changes)


def narrow(model: keras.Model, kept: Sequence[int]) -> keras.Model:
    """Builds the model with some of the rows of its token embedding.

    Args:
        model: a BERT; left as it is.
        kept: the rows that stay, in their new order.

    Returns:
        A model with weights of its own.
    """
    table = Anatomy.of(model).embeddings.token.name
    fields = model.get_config()
    for layer in fields["layers"]:
        if layer["config"]["name"] == table:
            layer["config"]["input_dim"] = len(kept)
    with own_objects():
        small = type(model).from_config(fields)
    for layer in small.layers:
        weights = model.get_layer(layer.name).get_weights()
        layer.set_weights([weights[0][kept]] if layer.name == table
                          else weights)
    return small


def _check(removable, rows: int) -> None:
    beyond = [row for row in (*removable, *removable.values()) if not 0 <= row < rows]
    if beyond:
        raise ValueError("A tokenizer's removable tokens must be of the model's "
                         f"{rows} rows. "
                         f"Received: {beyond[:8]}")
    both = sorted(set(removable.values()) & set(removable))
    if both:
        raise ValueError("What is read in the place of a token must stay. Received: "
                         f"removable tokens with {both[:8]} on both sides")


def _used(batches: BatchSource) -> set[int]:
    """The token ids in a set of examples."""
    # An epoch's batches may leave out a remainder, each_once does not.
    if hasattr(batches, "each_once"):
        read = (inputs for _, inputs in batches.each_once())
    else:
        read = (inputs for inputs, _ in batches.dataset())
    used: set[int] = set()
    for inputs in read:
        used.update(np.unique(inputs[_IDS]).tolist())
    return used


class Renumbered:
    """Batches whose token ids are replaced by others (see `data.Batches`).

    Args:
        batches: what to read.
        places: <int32>[V], the new id of each.
    """

    def __init__(self, batches: Any, places: np.ndarray):
        self.batch_size = batches.batch_size
        self._batches = batches
        self._places = places

    def __len__(self) -> int:
        """N."""
        return len(self._batches)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, <int>[N]."""
        return self._batches.lengths

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""
        return self._batches.steps_per_epoch

    def dataset(self, epochs: int = 1, first_step: int = 0) -> tf.data.Dataset:
        """The batches of a whole run."""
        return self._batches.dataset(epochs, first_step).map(
            lambda inputs, *labels: (self._renumber(inputs), *labels))

    def fingerprint(self) -> str:
        """A hash of the examples."""
        own = hashlib.sha256(self._batches.fingerprint().encode())
        own.update(np.ascontiguousarray(self._places).data)
        return own.hexdigest()

    def each_once(self, first: int = 0
                  ) -> Iterator[tuple[np.ndarray, dict[str, tf.Tensor]]]:
        """The numbers of a batch's examples <int>[B], and their inputs."""
        for index, inputs in self._batches.each_once(first):
            yield index, self._renumber(inputs)

    def with_teacher_logits(self, logits) -> Renumbered:
        """The same batches, which carry a teacher's logits <float>[N, C]."""
        return Renumbered(self._batches.with_teacher_logits(logits), self._places)

    def _renumber(self, inputs):
        return {**inputs, _IDS: tf.gather(self._places, inputs[_IDS])}
