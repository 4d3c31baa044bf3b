"""keras.Model -> `.tflite`, by TensorFlow's converter; a BERT is wired anew first."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence

from tfopt import functional
from tfopt.backend import keras, tf
from tfopt.export import flatbuffer, saved_model
from tfopt.export.densify import densified
from tfopt.model import for_inference
from tfopt.model.inference_layers import LOWEST


def to_bytes(
    model: keras.Model,
    *,
    length: int | None = None,
    optimizations: Sequence = (),
    types: Sequence = (),
    outlier_channels: Mapping[str, Sequence[int]] | None = None,
    integer: bool = False,
) -> bytes:
    """Converts a model.

    Args:
        model: functional, of plain layers, with one output; no models within it.
        length: tokens of the input; None leaves it open.
        optimizations: of the converter.
        types: those that it may use for weights.
        outlier_channels: as of `model.for_inference`.
        integer: the same.

    Returns:
        A `.tflite`.

    Raises:
        ValueError: the length is out of range, `saved_model.check` refuses the model,
            or it holds an operation that TFLite has not.
    """
    if length is not None and length < 1:
        raise ValueError(f"`length` must be at least 1. Received: length={length}")
    saved_model.check(model)
    inference_model = for_inference(functional.in_float32(densified(model)),
                                    outlier_channels, integer)
    with tempfile.TemporaryDirectory() as directory:
        saved_model.save(inference_model, directory, 1, length)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=[saved_model.SIGNATURE])
        converter.optimizations = list(optimizations)
        converter.target_spec.supported_types = list(types)
        try:
            contents = converter.convert()
        except Exception as error:  # the converter raises its own, undocumented, kinds
            raise ValueError(
                "The model cannot be converted; TFLite lacks an operation or refuses a "
                f"shape. Received: model {model.name!r}: "
                f"{str(error).partition(chr(10))[0][-400:]}") from error
    # Nothing is kept apart where LayerNorm may be folded.
    return contents if outlier_channels is None else flatbuffer.join(contents, LOWEST)
