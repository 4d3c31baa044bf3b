"""Examples -> tf.data: bucketed by length, shuffled from a seed, padded little.

The whole order of a run is a pure function of (lengths, batch size, seed, epoch), so
that a resumed run can start at any step and see what the unbroken run would have
seen. Batches hold examples of like length: computing on padding is what a naive
pipeline wastes most on.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from tfopt import inputs as model_inputs
from tfopt.backend import tf
from tfopt.checks import are_probabilities
from tfopt.data import targets as model_targets
from tfopt.data.tokenizer_json import Encoded
from tfopt.types import INPUT_NAMES, check_lists

_LOOKED_AT = 1024  # rows of a teacher's logits


def plan(lengths: np.ndarray, batch_size: int, seed: int, epoch: int,
         drop_remainder: bool = False, sort_window: int = 64) -> list[np.ndarray]:
    """Which examples make up each batch of one epoch.

    Args:
        lengths: <int>[N] ids of each example.
        batch_size: B.
        seed: of the order.
        epoch: from 0; every epoch has an order of its own.
        drop_remainder: whether the last, smaller batch is left out.
        sort_window: batches whose examples are sorted by length together: more save
            padding, fewer mix the lengths of a batch; 1 does not sort.

    Returns:
        Index arrays <int>[B], the last one maybe smaller; each example is in one.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    # The smaller batch is taken off first: which examples it has is chance too.
    whole = len(order) // batch_size * batch_size
    rest = order[whole:]
    window = batch_size * sort_window
    batches = []
    for start in range(0, whole, window):
        part = order[start:min(start + window, whole)]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += np.split(part, len(part) // batch_size)
    if len(rest) and not drop_remainder:
        batches.append(rest)
    return [batches[i] for i in random.permutation(len(batches))]


class Batches:
    """A set of encoded examples, ready to be trained on or predicted.

    Args:
        encoded: token ids of N examples.
        targets: what the model is to give for each of N examples: class numbers, below
            0 for texts without a label, or floats, NaN for those without; or arrays of
            either, of one shape. None stands for a target that is missing; in the place
            of all, if all are without.
        batch_size: B.
        shuffle_seed: of the order; None keeps like lengths together in one fixed
            order, for evaluation.
        pad_to: every batch is padded to this many tokens, as TPUs want; None pads to
            the batch's longest, rounded up to a multiple of `pad_multiple`.
        pad_multiple: of tokens; XLA, which compiles anew for each length, wants few
            lengths, and so a large one.
        drop_remainder: whether a last, smaller batch is left out.
        sort_window: batches whose examples are sorted by length together, when
            shuffled: more save padding, fewer mix the lengths of a batch.
        pad_id: stands behind shorter texts; None for that of `encoded`.
        names: inputs that the model has, of `types.INPUT_NAMES`.
        per_token: whether the target of an example has a number for each of its tokens;
            targets are then padded as ids are, with -1 or NaN.

    Raises:
        ValueError: nothing to batch, a size, window or multiple below 1, examples
            longer than `pad_to`, or not as many targets as examples, or as tokens.
    """

    def __init__(self, encoded: Encoded, targets=None, *, batch_size: int = 32,
                 shuffle_seed: int | None = None, pad_to: int | None = None,
                 pad_multiple: int = 8, drop_remainder: bool = False,
                 sort_window: int = 64, pad_id: int | None = None,
                 names: Sequence[str] = INPUT_NAMES, per_token: bool = False):
        check_lists(names=names, targets=targets)
        self.lengths = np.array([len(ids) for ids in encoded.ids], np.int64)
        if min(batch_size, sort_window, pad_multiple) < 1:
            raise ValueError(
                "`batch_size`, `sort_window` and `pad_multiple` must be at least 1. "
                f"Received: batch_size={batch_size}, sort_window={sort_window}, "
                f"pad_multiple={pad_multiple}")
        if not len(self.lengths) or (drop_remainder and len(self.lengths) < batch_size):
            raise ValueError("There must be at least one batch of examples. Received: "
                             f"{len(self.lengths)} examples, batch_size={batch_size}")
        if pad_to is not None and self.lengths.max() > pad_to:
            raise ValueError("No example may be longer than `pad_to`. Received: "
                             f"{self.lengths.max()} tokens, pad_to={pad_to}")
        self.targets = None if targets is None else model_targets.build(
            targets, self.lengths, per_token=per_token)
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.pad_to = pad_to
        self.pad_multiple = pad_multiple
        self.drop_remainder = drop_remainder
        self.sort_window = sort_window
        self.pad_id = encoded.pad_id if pad_id is None else pad_id
        self.names = tuple(names)
        self.per_token = (per_token and self.targets is not None
                          and self.targets.ndim > 1)
        self._ids = tf.RaggedTensor.from_row_lengths(
            np.concatenate([np.asarray(ids, np.int32) for ids in encoded.ids]),
            self.lengths)
        self._first_lengths = tf.constant(encoded.first_lengths, tf.int32)
        self._teacher_logits = None

    def __len__(self) -> int:
        """N."""
        return len(self.lengths)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""
        return len(self.epoch_plan(0))

    def epoch_plan(self, epoch: int) -> list[np.ndarray]:
        """The index arrays of one epoch's batches, in their order."""
        if self.shuffle_seed is not None:
            return plan(self.lengths, self.batch_size, self.shuffle_seed, epoch,
                        self.drop_remainder, self.sort_window)
        order = np.argsort(self.lengths, kind="stable")
        cuts = range(self.batch_size, len(order), self.batch_size)
        batches = np.split(order, list(cuts))
        if self.drop_remainder and len(batches[-1]) < self.batch_size:
            batches.pop()
        return batches

    def dataset(self, epochs: int = 1, first_step: int = 0) -> tf.data.Dataset:
        """The batches of a whole run.

        Args:
            epochs: epochs of the run, each in an order of its own.
            first_step: batches of the run to leave out at its beginning.

        Returns:
            A dataset of ({input_ids, attention_mask, token_type_ids}, targets), of
            shapes <int32>[B, T] and <int32>[B, ...] or <float32>[B, ...], or of the
            inputs alone where there are no targets; prefetched. From
            `with_teacher_logits` on, in the targets' place there is (targets, logits
            <float32>[B, C]).
        """
        batches = [b for epoch in range(epochs) for b in self.epoch_plan(epoch)]
        batches = batches[first_step:]
        indices = tf.RaggedTensor.from_row_lengths(
            np.concatenate(batches) if batches else np.zeros(0, np.int64),
            np.array([len(b) for b in batches], np.int64))
        size = self.batch_size if self.drop_remainder else None
        dataset = tf.data.Dataset.from_tensor_slices(indices).map(
            lambda index: self._batch(tf.ensure_shape(index, [size])),
            num_parallel_calls=2)
        return dataset.prefetch(4)

    def with_teacher_logits(self, logits) -> Batches:
        """The same batches, which carry a teacher's logits for `train.Distillation`.

        Args:
            logits: <float>[N, C]; or, of a teacher with an output a token, of all
                tokens of one example after the other, <float>[tokens, C]. A tensor is
                taken as it is, which may be mapped from a file.

        Raises:
            ValueError: they are not of N examples, or are probabilities.
        """
        if not tf.is_tensor(logits):
            logits = np.asarray(logits, np.float32)
        tokens = int(self.lengths.sum())
        if len(logits.shape) != 2 or logits.shape[0] not in (len(self), tokens):
            raise ValueError("There must be a row of logits an example, or a token. "
                             f"Received: logits of shape {tuple(logits.shape)}, "
                             f"{len(self)} examples of {tokens} tokens")
        first = np.asarray(logits[:_LOOKED_AT], np.float32)
        if are_probabilities(first):
            raise ValueError(
                "A teacher's logits are numbers before softmax; the logarithm of "
                "probabilities will do. Received: rows that are probabilities, such as "
                f"{first[0, :4].tolist()}")
        carrying = copy.copy(self)
        logits = logits if tf.is_tensor(logits) else tf.constant(logits)
        of_texts = logits.shape[0] == len(self)
        carrying._teacher_logits = logits if of_texts else (
            tf.RaggedTensor.from_row_lengths(logits, self.lengths))
        return carrying

    def part(self, rows: np.ndarray) -> Batches:
        """Batches of some of the examples, which may repeat; without logits.

        Args:
            rows: numbers of examples, <int>[n].
        """
        found = copy.copy(self)
        found.lengths = self.lengths[rows]
        found.targets = None if self.targets is None else self.targets[rows]
        found._ids = tf.gather(self._ids, rows)
        found._first_lengths = tf.gather(self._first_lengths, rows)
        found._teacher_logits = None
        return found

    def fingerprint(self) -> str:
        """A hash of the examples: their token ids and segments, in their order."""
        digest = hashlib.sha256()
        for array in (self._ids.values, self.lengths, self._first_lengths):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def each_once(self, first: int = 0
                  ) -> Iterator[tuple[np.ndarray, dict[str, tf.Tensor]]]:
        """Each example once, whatever the order and remainder of training.

        Args:
            first: examples to leave out at the beginning of the order, which is that of
                their lengths, whatever the batch size.

        Yields:
            The numbers of a batch's examples <int>[B], and their inputs.
        """
        order = np.argsort(self.lengths, kind="stable")
        for start in range(first, len(order), self.batch_size):
            index = order[start:start + self.batch_size]
            yield index, self._inputs(tf.constant(index))

    def _batch(self, index):
        inputs = self._inputs(index)
        if self.targets is None and self._teacher_logits is None:
            return inputs
        tokens = tf.shape(next(iter(inputs.values())))[1]
        targets = self._targets(index, tokens)
        if self._teacher_logits is None:
            return inputs, targets
        logits = tf.cast(tf.gather(self._teacher_logits, index), tf.float32)
        if isinstance(logits, tf.RaggedTensor):  # [B, (T), C] -> [B, T, C]
            logits = logits.to_tensor(shape=tf.stack(
                [-1, tf.cast(tokens, tf.int64), -1]))
            logits = tf.ensure_shape(logits, [
                index.shape[0], self.pad_to, self._teacher_logits.shape[-1]])
        return inputs, (targets, logits)

    def _targets(self, index, tokens):
        if self.targets is None:
            return tf.fill(tf.shape(index), -1)
        found = tf.gather(self.targets, index)
        if not self.per_token:
            return found
        # [B, longest of all, ...] -> [B, T, ...]: padding is all that is cut or added.
        more = tf.maximum(0, tokens - tf.shape(found)[1])
        missing = model_targets.missing(self.targets.dtype)
        found = tf.pad(found, [[0, 0], [0, more], *[[0, 0]] * (found.shape.rank - 2)],
                       constant_values=missing)[:, :tokens]
        return tf.ensure_shape(found, [index.shape[0], self.pad_to, *found.shape[2:]])

    def _inputs(self, index):
        ids = tf.gather(self._ids, index)
        # Not ids.row_lengths(), which forgets a static batch size.
        lengths = tf.cast(tf.gather(self.lengths, index), tf.int32)
        tokens = self.pad_to or (
            -(-tf.reduce_max(lengths) // self.pad_multiple) * self.pad_multiple)
        ids = ids.to_tensor(self.pad_id,
                            shape=tf.cast(tf.stack([-1, tokens]), tf.int64))
        first_lengths = tf.gather(self._first_lengths, index)
        visible, second = model_inputs.visible_and_segments(
            tf.range(tokens)[tf.newaxis], lengths[:, tf.newaxis],
            first_lengths[:, tf.newaxis])
        arrays = {
            "input_ids": tf.ensure_shape(ids, [index.shape[0], self.pad_to]),
            "attention_mask": tf.cast(visible, tf.int32),
            "token_type_ids": tf.cast(second, tf.int32),
        }
        return {name: arrays[name] for name in self.names}
