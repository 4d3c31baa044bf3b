"""The one-line forms: a model in, a pruned one or a `.tflite` out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from tfopt import checks
from tfopt.backend import keras, tf
from tfopt.compress import registry
from tfopt.compress.base import Context
from tfopt.compress.pruning.base import Pruning
from tfopt.compress.recipe import Recipe, run
from tfopt.data.bert_alike import why_no_bert
from tfopt.data.tokenizer import Tokenizer, from_directory
from tfopt.export import mediapipe, tflite
from tfopt.export.calibrate import Example
from tfopt.model import quantized_layers_of
from tfopt.train.settings import Settings
from tfopt.types import BatchSource, PathLike, shown


def compress_model(
    model: keras.Model,
    sparsity: float | None = None,
    *,
    train: BatchSource | tf.data.Dataset | None = None,
    dev: BatchSource | tf.data.Dataset | None = None,
    score: str = "magnitude",
    settings: Settings = Settings(),  # noqa: B008
    **options: Any,
) -> keras.Model:
    """Prunes a model: while training where there is data, at once where there is none.

        small = tfopt.compress_model(model, 0.5)
        small = tfopt.compress_model(model, 0.8, train=dataset, score="taylor")

    Args:
        model: a BERT, or any functional model, to logits <float>[B, C]; left as it is.
        sparsity: fraction of the weights of each kernel to set to zero, in (0, 1); may
            be left out with a pattern N:M.
        train: labelled batches to learn from, such as a finite `tf.data.Dataset` of
            (inputs, class ids <int>[B]).
        dev: labelled batches that choose the best epoch after the pruning.
        score: name of a pruning pass: "magnitude", "movement", "taylor", "fisher".
        settings: how to train.
        **options: other fields of the pass, such as `pattern="2:4"`.

    Returns:
        The pruned copy.

    Raises:
        ValueError: a value is out of its range, the score needs data and there is none,
            or a dataset has no known length.
    """
    kinds = {name: kind for name, kind in registry.all_passes().items()
             if issubclass(kind, Pruning)}
    if score not in kinds:
        raise ValueError(f"`score` must be one of {sorted(kinds)}. "
                         f"Received: score={score!r}")
    pruning = kinds[score](**{"final_sparsity": sparsity, **options})
    if train is None:
        return pruning.prune_at_once(model)
    context = Context(train=_batches(train), dev=_batches(dev),
                      settings=settings)
    outcome, = run(model, Recipe(passes=(pruning,)), context)
    return outcome.model


def quantize_model(
    model: keras.Model,
    scheme: str = "dynamic_wi8_afp32",
    *,
    calibration: Sequence[Example] | None = None,
    train: BatchSource | tf.data.Dataset | None = None,
    dev: BatchSource | tf.data.Dataset | None = None,
    settings: Settings = Settings(),  # noqa: B008
    length: int | None = None,
    method: str = "min_max",
    **options: Any,
) -> bytes:
    """Quantizes a model: trained with quantization where there is data, or after.

        contents = tfopt.quantize_model(model)
        contents = tfopt.quantize_model(model, "static_wi8_ai8", calibration=examples)
        contents = tfopt.quantize_model(model, "dynamic_wi4b32_afp32", train=dataset)

    Args:
        model: a BERT, or any functional model, to logits <float>[B, C]; left as it is.
        scheme: an export, one of `export.tflite.SCHEMES`.
        calibration: examples, a batch of 1 each (`tfopt.inputs.examples`); for
            the schemes with static ranges, and for "integer_wi8_ai8" in any case.
        train: labelled batches to train on with quantization.
        dev: labelled batches that choose the best epoch.
        settings: how to train.
        length: tokens of the input; None leaves it open.
        method: how ranges are taken from the examples.
        **options: other fields of the pass `quantization_aware`.

    Returns:
        The `.tflite`.

    Raises:
        ValueError: the scheme is unknown, or cannot be trained for; the model is
            quantized already; a value is out of its range; or examples are missing.
    """
    tflite.check_scheme(scheme)
    checks.check(model)
    if quantized_layers_of(model):
        raise ValueError("The model is quantized already; `tfopt.convert` exports it. "
                         f"Received: {model.name!r}")
    if train is not None:
        step = registry.from_fields({"pass": "quantization_aware", "scheme": scheme,
                                     **options})
        context = Context(train=_batches(train), dev=_batches(dev),
                          settings=settings)
        outcome, = run(model, Recipe(passes=(step,)), context)
        model = outcome.model
    elif options:
        raise ValueError("Options are of training, which needs `train`. Received: "
                         f"{', '.join(options)}")
    return tflite.convert(model, scheme, length=length, calibration=calibration,
                          method=method)


def add_metadata(contents: bytes, tokenizer: Tokenizer | PathLike,
                 labels: Sequence[str] = (), *, scores: str = "softmax") -> bytes:
    """Makes a `.tflite` one that MediaPipe's clients open, too.

        contents = tfopt.convert(model, "dynamic_wi8_afp32")
        contents = tfopt.add_metadata(contents, "checkpoint/", ["no", "yes"])

    What it computes, by its signature, stays the same to the bit; docs/edge.md says
    what is added.

    Args:
        contents: of the `.tflite`, as `tfopt.convert` makes it, of a text's outputs.
        tokenizer: of the model, uncased BERT's; or a directory with its files.
        labels: by class; none for a model of sentence vectors.
        scores: what makes scores of logits: "softmax", or "sigmoid" where a text may
            have several labels.

    Returns:
        The `.tflite`.

    Raises:
        ValueError: the file has metadata already, or cannot have them; says why.
    """
    found = (from_directory(tokenizer) if isinstance(tokenizer, str | os.PathLike)
             else tokenizer)
    reason = why_no_bert(found)
    if reason:
        raise ValueError(f"A .tflite cannot be one for MediaPipe's clients: {reason}. "
                         f"Received: {shown(tokenizer)}")
    return mediapipe.add(contents, vocabulary=found.words, labels=labels, scores=scores)


@dataclasses.dataclass(frozen=True)
class _DatasetBatches:
    """A finite dataset of batches as a `BatchSource`."""

    batches: tf.data.Dataset
    steps_per_epoch: int
    batch_size: int

    def dataset(self, epochs: int = 1, first_step: int = 0) -> tf.data.Dataset:
        return self.batches.repeat(epochs).skip(first_step)


def _batches(source: Any) -> BatchSource | None:
    if source is None:
        return None
    if not isinstance(source, tf.data.Dataset):
        if not hasattr(source, "steps_per_epoch") or not hasattr(source, "dataset"):
            raise ValueError(
                "Data must be `tfopt.data.Batches` or a `tf.data.Dataset` of batches; "
                "of arrays, `tf.data.Dataset.from_tensor_slices((inputs, class_ids))"
                f".batch(32)` is one. Received: {type(source).__name__}")
        return source
    steps = int(source.cardinality())
    if steps < 1:
        raise ValueError("A dataset must have a known, finite number of batches "
                         "(`tf.data.experimental.assert_cardinality`). Received: "
                         f"cardinality {steps}")
    return _DatasetBatches(source, steps, _size_of_batch(source))


def _size_of_batch(source: tf.data.Dataset) -> int:
    first = tf.nest.flatten(next(iter(source)))
    sizes = {tensor.shape[0] if tensor.shape.rank else 0 for tensor in first}
    size = max(sizes)
    if sizes != {size} or not size:
        raise ValueError("A dataset must be of whole batches (`dataset.batch(32)`). "
                         "Received: a first element of the shapes "
                         f"{[tuple(tensor.shape) for tensor in first]}")
    return int(size)
