"""Which words decided: integrated gradients of a logit, word by word.

Source: Sundararajan et al. 2017, "Axiomatic attribution for deep networks",
arXiv:1703.01365. On the way from a text of padding alone to the text, each token's
embedding times the gradient of a logit, summed up; together the words then have what
the logit has changed by. [CLS], [SEP] and their kin stay what they are on all of the
way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfopt import compress, inputs
from tfopt.backend import keras, tf
from tfopt.data.places import NO_WORD, Places
from tfopt.export import tflite
from tfopt.model.anatomy import Anatomy
from tfopt.tasks.regression import correlation, ranks
from tfopt.types import INPUT_NAMES

TOLERANCE = 0.01  # of the change of the logit, that the sum may be off
_FEWEST_STEPS, _MOST_STEPS, _BATCH = 16, 512, 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribution:
    """What each token of a text has to do with a logit.

    Attributes:
        values: of each token, in units of the logit, <float>[T]; 0 of special tokens.
        output: number of the logit.
        logit: of the text.
        without: the same where all words are padding.
        steps: points of the way at which gradients were taken.
    """

    values: np.ndarray
    output: int
    logit: float
    without: float
    steps: int

    @property
    def gap(self) -> float:
        """How far the sum is from the change of the logit, as a fraction of it."""
        change = self.logit - self.without
        return abs(float(self.values.sum()) - change) / max(abs(change), 1e-12)


class Explainer:
    """Explains the answers of one model.

    Args:
        model: an encoder of tfopt's, to logits <float>[B, C].
        pad_id: of its tokenizer.

    Raises:
        ValueError: the model is none of tfopt's encoders, or gives outputs of each
            token.
    """

    def __init__(self, model: keras.Model, pad_id: int = 0):
        if len(model.output_shape) != 2:
            raise ValueError("What decided can be told of a text's outputs. Received: "
                             f"a model that gives {model.output_shape}")
        table = Anatomy.of(model).embeddings.token
        self._rows, self._pad_id = table, pad_id
        given = dict(zip(model.input_names, model.inputs, strict=True))
        self._names = [name for name in model.input_names if name != INPUT_NAMES[0]]
        self._rest = keras.Model(
            [table.output, *(given[name] for name in self._names)], model.output)

    def explain(self, ids: list[int], places: Places, first_length: int | None = None,
                output: int | None = None) -> Attribution:
        """Attributes a logit of one text to its tokens.

        Args:
            ids: T of the text.
            places: of its tokens (`data.Places`), which tell special ones.
            first_length: ids of the first segment; None for all.
            output: number of the logit; None for the highest.

        Returns:
            The attribution; steps are doubled until its `gap` is within `TOLERANCE`,
            up to 512.
        """
        values = inputs.build([ids], [first_length or len(ids)], INPUT_NAMES)
        words = np.array(places.words) != NO_WORD
        end = self._rows(tf.constant(values[INPUT_NAMES[0]]))
        padding = self._rows(tf.fill([1, len(ids)], self._pad_id))
        start = tf.where(words[np.newaxis, :, np.newaxis], padding, end)
        both = self._logits(tf.concat([start, end], 0), values).numpy()
        chosen = int(both[1].argmax()) if output is None else output
        steps = _FEWEST_STEPS
        while True:
            found = Attribution(
                values=self._summed(start, end, values, chosen, steps), output=chosen,
                logit=float(both[1, chosen]), without=float(both[0, chosen]),
                steps=steps)
            if found.gap <= TOLERANCE or steps >= _MOST_STEPS:
                return found
            steps *= 2

    def _logits(self, rows: tf.Tensor, values: Mapping[str, np.ndarray]) -> tf.Tensor:
        count = rows.shape[0]
        return self._rest([rows, *(np.repeat(values[name], count, 0)
                                   for name in self._names)], training=False)

    def _summed(self, start: tf.Tensor, end: tf.Tensor, values: Mapping,
                output: int, steps: int) -> np.ndarray:
        """The integral, by Gauss and Legendre's rule of so many points."""
        places, weights = np.polynomial.legendre.leggauss(steps)
        total = np.zeros(end.shape[1:], np.float64)
        for first in range(0, steps, _BATCH):
            part = (places[first:first + _BATCH, np.newaxis, np.newaxis] + 1) / 2
            rows = start + tf.cast(part, start.dtype) * (end - start)
            with tf.GradientTape() as tape:
                tape.watch(rows)
                logit = self._logits(rows, values)[:, output]
            slopes = tape.gradient(logit, rows).numpy().astype(np.float64)
            total += np.tensordot(weights[first:first + _BATCH] / 2, slopes, 1)
        return (total * (end - start)[0].numpy()).sum(axis=-1)


def rounded(model: keras.Model, scheme: str) -> keras.Model:
    """A model that rounds weights and activations as an export does.

    Gradients pass the rounding by as if it were none.

    Args:
        model: in float; left as it is.
        scheme: of the export.

    Raises:
        ValueError: the scheme is unknown, or needs ranges, which the model has not.
    """
    if tflite.needs_calibration(scheme):
        raise ValueError("An export that needs no ranges is asked for. Received: "
                         f"--scheme={scheme}")
    step = compress.from_fields({"pass": "quantization_aware", "scheme": scheme})
    return step.wrap(model)


def by_word(found: Attribution, places: Places) -> list[tuple[str, float]]:
    """The words of a text, each with the sum of its tokens' values.

    Args:
        found: of the text.
        places: of its tokens.
    """
    words: dict[int, list] = {}
    for number, (begin, end), value in zip(places.words, places.spans, found.values,
                                           strict=True):
        if number != NO_WORD:
            own = words.setdefault(number, [begin, end, 0.0])
            own[1], own[2] = end, own[2] + float(value)
    return [(places.text[begin:end], value) for begin, end, value in words.values()]


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two attributions of the same words; NaN of one word.

    Args:
        one: <float>[W].
        other: <float>[W].
    """
    return correlation(ranks(one), ranks(other)) if len(one) > 1 else float("nan")
