"""keras.Model -> the bytes of a `.tflite` file.

Every scheme uses built-in operations alone, no flex ops. A BERT is wired anew first
(`model.for_inference`): the same numbers from two thirds of the operations. The batch
is one text; its length is open, `[1, None]`, to be resized per request, unless fixed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from absl import logging

from tfopt.backend import keras, tf
from tfopt.model import for_inference


def _float32(converter: tf.lite.TFLiteConverter) -> None:
    """Weights and arithmetic as they are."""


def _float16(converter: tf.lite.TFLiteConverter) -> None:
    """Weights kept in half the bytes; widened to float32 when loaded on a CPU."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic_wi8_afp32(converter: tf.lite.TFLiteConverter) -> None:
    """Int8 weights, per output channel; activations quantized at run time.

    The embedding table is int8 too.
    """
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _sparse_float32(converter: tf.lite.TFLiteConverter) -> None:
    """Pruned kernels as their nonzeros and where they are; arithmetic as it is.

    It saves bytes, not time: the runtime lays the kernels out densely again, or takes
    slower code. Of int8 kernels LiteRT's XNNPACK computes wrong numbers so, without a
    word.
    """
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]


_SCHEMES: dict[str, Callable[[tf.lite.TFLiteConverter], None]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic_wi8_afp32": _dynamic_wi8_afp32,
    "sparse_float32": _sparse_float32,
}
SCHEMES = tuple(_SCHEMES)


def check_scheme(scheme: str) -> None:
    """Checks that a scheme is known.

    Raises:
        ValueError: it is not.
    """
    if scheme not in _SCHEMES:
        raise ValueError(f"An export must be one of {SCHEMES}. Received: {scheme!r}")


def convert(model: keras.Model, scheme: str = "dynamic_wi8_afp32", *,
            length: int | None = None) -> bytes:
    """Converts a model.

    Args:
        model: functional; its inputs are <...>[B, ...] each.
        scheme: one of `SCHEMES`.
        length: tokens of the input; None leaves it open, to be resized per request.

    Returns:
        A `.tflite` with the signature `serving_default`, from the model's inputs by
        name, of batch 1, to "logits".

    Raises:
        ValueError: the scheme is unknown, the length out of range, or the model is not
            functional, has several outputs, or holds an operation that TFLite has not.
    """
    check_scheme(scheme)
    if length is not None and length < 1:
        raise ValueError(f"`length` must be at least 1. Received: length={length}")
    # Sequential models are functional too, once built.
    if not getattr(model, "_is_graph_network", False) or len(model.outputs) != 1:
        raise ValueError("A model must be functional, with one output. Received: "
                         f"{type(model).__name__} {model.name!r} with outputs "
                         f"{model.outputs}")
    lean = for_inference(model)
    specs = {name: tf.TensorSpec([1, *(length if axis is None else axis
                                       for axis in tensor.shape[1:])],
                                 tensor.dtype, name=name)
             for name, tensor in zip(lean.input_names, lean.inputs, strict=True)}

    module = tf.Module()
    # Not the model: Keras would trace each layer anew, three times the whole work.
    module.weights = lean.weights
    module.serve = tf.function(
        lambda **inputs: {"logits": lean(inputs if len(inputs) > 1 else
                                         next(iter(inputs.values())), training=False)})
    signature = module.serve.get_concrete_function(**specs)
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory,
                            signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=["serving_default"])
        _SCHEMES[scheme](converter)
        try:
            contents = converter.convert()
        except Exception as error:  # the converter raises its own, undocumented, kinds
            raise ValueError(
                f"The model cannot be converted to {scheme}; TFLite lacks an operation "
                f"or refuses a shape. Received: model {model.name!r}: "
                f"{str(error).partition(chr(10))[0][-400:]}") from error
    logging.info("Exported %s: %.1f MB", scheme, len(contents) / 1e6)
    return contents
