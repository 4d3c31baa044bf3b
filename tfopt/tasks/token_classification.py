"""Token classification: each word of a text -> a tag; tags -> entities with places.

Cross-entropy of the softmax of C outputs a token. A word's tag is that of its first
token, as Devlin et al. 2018 (arXiv:1810.04805, section 5.3) have it; the others of a
word, special tokens and padding have no target. Judged by whole entities, as conlleval
and seqeval's default mode do (`entities`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt.report import Metric
from tfopt.tasks import entities, figures, tagged_words
from tfopt.tasks.base import Task, check_same_number
from tfopt.tasks.judged import Signals
from tfopt.tasks.tagged_words import NONE, Counts, TaggedWords
from tfopt.types import shown

if TYPE_CHECKING:
    from tfopt.model.heads import Head
    from tfopt.train.objective import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """A tag of C for each word.

    Attributes:
        labels: C tags by class number; may be left out where only losses are asked for.
    """

    monitor = ("entity_f1", "higher")
    label_form = "tags"
    no_target = NONE
    target_rank = 1
    per_token = True
    published_as = "ForTokenClassification"
    pipeline_tag = "token-classification"
    metrics = (Metric("entity_f1", "fraction", "higher"),
               Metric("entity_precision", "fraction", "higher"),
               Metric("entity_recall", "fraction", "higher"),
               Metric("token_accuracy", "fraction", "higher"))
    no_cascade = "the answer to a text is of many words, each sure or not by itself"

    def __post_init__(self):
        """Checks the labels.

        Raises:
            ValueError: one is no tag, or named twice.
        """
        figures.check_labels(self.labels, "A token classification")
        for label in self.labels:
            entities.parse(label)

    @classmethod
    def from_corpus(cls, corpus: Any, known_labels: Sequence[str] | None = None
                    ) -> TokenClassification:
        """The tags of a train set; in the checkpoint's own order where it has them.

        Args:
            corpus: a `data.Corpus` of words with tags.
            known_labels: of the checkpoint, in the order of its classes; or None.

        Raises:
            ValueError: there are not two tags, one is none (names file and line), or
                words have no tags.
        """
        tagged_words.check(corpus)
        found = entities.in_order(corpus.label_list())
        if len(found) < 2:
            raise ValueError(f"{corpus.path}: a token classification needs words of two"
                             f" tags or more. Received: {len(corpus)} texts of "
                             f"{shown(found)}")
        return cls(labels=figures.in_known_order(found, known_labels))

    @property
    def outputs(self) -> int:
        """C, of each token."""
        return len(self.labels)

    def head(self) -> Head:
        """A classifier of each token, without a pooler."""
        from tfopt.model.heads import Head

        return Head(outputs=self.outputs, reads="all", pooler=None)

    def targets(self, corpus: Any) -> list[np.ndarray]:
        """The class number of every word, <int32>[W] of each text.

        Raises:
            ValueError: a tag is none, or not among the task's; names file and line.
        """
        tagged_words.check(corpus)
        corpus.check_known(self.labels)
        return self._numbers(corpus)

    def evaluation_targets(self, corpus: Any) -> list[np.ndarray]:
        """The same; -1 of a tag that the task lacks.

        Raises:
            ValueError: a tag is none; names file and line.
        """
        tagged_words.check(corpus)
        return self._numbers(corpus)

    def on_tokens(self, targets: Sequence, corpus: Any, encoded: Any
                  ) -> list[TaggedWords]:
        """The tags of words on the tokens that stand for them.

        Args:
            targets: of N texts, by words.
            corpus: of these.
            encoded: of these, with places.
        """
        return [TaggedWords.of(tags, numbers, words, places)
                for tags, numbers, words, places in zip(
                    corpus.labels, targets, corpus.word_spans, encoded.places,
                    strict=True)]

    def remarks(self, name: str, targets: Sequence, truncated: int) -> list[str]:
        """What a reader must know of the words that have no token.

        Args:
            name: of the split.
            targets: of N texts, on their tokens.
            truncated: how many texts were cut.
        """
        return tagged_words.remarks(name, targets, truncated)

    def objective(self) -> Objective:
        """Cross-entropy, with entity F1 and accuracy."""
        from tfopt.train import token_objective

        return token_objective.cross_entropy(
            [entities.parse(label) for label in self.labels], self.monitor)

    def guess(self, outputs: Any) -> Any:
        """The likeliest class of each token <int32>[B, T]."""
        from tfopt.backend import tf

        return tf.argmax(outputs, -1, tf.int32)

    def with_guesses(self, outputs: Any, targets: Any, visible: Any = None) -> Any:
        """Targets, with the model's guesses for all tokens of a text that has none.

        Args:
            outputs: <float>[B, T, C].
            targets: <int32>[B, T], or [B] of -1.
            visible: <int32>[B, T], 0 where a token is padding; None for none.

        Returns:
            <int32>[B, T], constants to a gradient.
        """
        from tfopt.backend import tf

        guesses = tf.stop_gradient(self.guess(outputs))
        if visible is not None:
            guesses = tf.where(visible > 0, guesses, NONE)
        if targets.shape.rank == 1:
            targets = targets[:, tf.newaxis]
        targets = tf.cast(targets, guesses.dtype) + tf.zeros_like(guesses)
        known = tf.reduce_any(targets >= 0, axis=1, keepdims=True)
        return tf.where(known, targets, guesses)

    def quality(self, outputs: Any, targets: Sequence
                ) -> dict[str, float]:
        """How many entities are found, and words right.

        Args:
            outputs: logits <float>[T, C] of N texts.
            targets: `TaggedWords`, or class numbers <int>[T], -1 of tokens without.

        Returns:
            {entity_f1, entity_precision, entity_recall, token_accuracy}, fractions in
            [0, 1]. An entity is right if its first and last word and its type are; a
            word without a token is taken to be answered by O.

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """
        counts = self._counts(outputs, targets)
        found = figures.of_counts(*sum(counts.entities.values(), np.zeros(3, int)))
        return {"entity_f1": found["f1"], "entity_precision": found["precision"],
                "entity_recall": found["recall"],
                "token_accuracy": counts.right / max(1, counts.words)}

    def by_class(self, outputs: Any, targets: Sequence
                 ) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and number of the entities of each type.

        Args:
            outputs: as of `quality`.
            targets: the same.

        Returns:
            Type -> {precision, recall, f1, support}; those that train lacks, too.

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """
        counts = self._counts(outputs, targets).entities
        types = dict.fromkeys([*entities.types(self.labels), *sorted(counts)])
        return {type_: figures.of_counts(*counts.get(type_, (0, 0, 0)))
                for type_ in types}

    def signals(self, outputs: Any) -> list[Signals]:
        """Of each text the least sure token's probability, and the mean entropy.

        Args:
            outputs: logits <float>[T, C] of N texts.
        """
        found = []
        for chances in map(_softmax, outputs):
            entropy = -(chances * np.log(np.maximum(chances, 1e-30))).sum(axis=-1)
            found.append(Signals(float(chances.max(axis=-1).min()),
                                 max(0.0, float(entropy.mean()))))
        return found

    def decode(self, outputs: Any, encoded: Any = None
               ) -> list[dict[str, Any]]:
        """The entities of each text, in its order.

        Args:
            outputs: logits <float>[T, C] of N texts.
            encoded: of these, with places.

        Returns:
            {"spans": [{"label": type, "start": first character, "end": one behind the
            last, "text": what stands there, "score": mean probability of its words'
            tags}, ...]} of each.

        Raises:
            ValueError: there are not C outputs, or nothing says where tokens are.
        """
        if encoded is None or encoded.places is None:
            raise ValueError("Entities have places in a text, of which the tokens' must"
                             " be known. Received: outputs without places")
        return [{"spans": self._spans(np.asarray(rows), places)}
                for rows, places in zip(outputs, encoded.places, strict=True)]

    def _spans(self, rows: np.ndarray, places: Any) -> list[dict[str, Any]]:
        figures.check_width(rows, self.labels)
        words = places.word_spans()
        chances = _softmax(rows[places.first_tokens()])  # [W, C]
        tags = [self.labels[number] for number in chances.argmax(axis=-1)]
        sure = chances.max(axis=-1)
        found = []
        for label, first, last in entities.spans(tags):
            start, end = words[first][0], words[last - 1][1]
            found.append({"label": label, "start": start, "end": end,
                          "text": places.text[start:end],
                          "score": float(sure[first:last].mean())})
        return found

    def _numbers(self, corpus: Any) -> list[np.ndarray]:
        numbers = figures.numbered(self.labels)
        return [np.array([numbers.get(tag, NONE) for tag in tags], np.int32)
                for tags in corpus.labels]

    def _counts(self, outputs: Any, targets: Sequence
                ) -> Counts:
        check_same_number(outputs, targets)
        texts = []
        for rows, target in zip(outputs, targets, strict=True):
            wanted, tokens = self._words(target)
            likeliest = np.asarray(rows).argmax(axis=-1)
            texts.append(([entities.OUTSIDE if token < 0 else
                           self.labels[likeliest[token]] for token in tokens], wanted))
        return Counts.of(texts)

    def _words(self, target: Any) -> tuple[Sequence[str], Sequence[int]]:
        """Tags of a text's words, and the first token of each."""
        if isinstance(target, TaggedWords):
            return target.tags, target.tokens
        classes = np.asarray(target)
        tokens = np.flatnonzero(classes >= 0).tolist()
        return [self.labels[classes[token]] for token in tokens], tokens


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities <float64>[..., C], that a mean of many may be taken of."""
    return figures.softmax(np.asarray(logits, np.float64))
