"""keras.Model -> a SavedModel that plain TensorFlow loads and runs, without tfopt.

It has one graph, for inference, at any batch and length, and the model's weights: of a
sparse layer (`tfopt.sparse`) the values and where they are, no kernel with zeros.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tfopt.backend import keras, tf
from tfopt.files import partial_directory
from tfopt.types import PathLike

SIGNATURE = "serving_default"


def write(model: keras.Model, path: PathLike) -> None:
    """Writes a SavedModel; whole, or not at all.

        loaded = tf.saved_model.load("exports/saved_model")     # keeps the variables
        served = loaded.signatures["serving_default"]
        logits = served(input_ids=..., attention_mask=..., token_type_ids=...)["logits"]

    Args:
        model: functional, with one output; its inputs are those of the signature
            `serving_default`, by name, of any batch and length; "logits" comes out.
        path: the directory; one that is there is replaced.

    Raises:
        ValueError: the model is not functional, or has several outputs.
        OSError: the disk is full or not writable; what was there stays.
    """
    check_functional(model)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_directory(path.parent) as temporary:
        whole = temporary / "whole"
        save(model, whole)
        if path.exists():
            shutil.rmtree(path)
        os.replace(whole, path)


def check_functional(model: keras.Model) -> None:
    """Checks that a model has one graph, and one output.

    Raises:
        ValueError: it is not functional, or has several outputs.
    """
    # Sequential models are functional too, once built.
    if not getattr(model, "_is_graph_network", False) or len(model.outputs) != 1:
        raise ValueError("A model must be functional, with one output. Received: "
                         f"{type(model).__name__} {model.name!r} with outputs "
                         f"{model.outputs}")


def save(model: keras.Model, directory: PathLike, batch: int | None = None,
         length: int | None = None) -> None:
    """Saves the one graph of a functional model into an empty directory.

    Args:
        model: as of `write`.
        directory: where to.
        batch: B; None leaves it as the model has it, mostly open.
        length: of what else is open; None leaves it so.
    """
    specs = {}
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        first, *others = tensor.shape
        specs[name] = tf.TensorSpec(
            [batch or first, *(length if axis is None else axis for axis in others)],
            tensor.dtype, name=name)
    module = tf.Module()
    # Not the model: Keras would trace each layer anew, three times the whole work.
    module.weights = model.weights
    module.serve = tf.function(
        lambda **inputs: {"logits": model(inputs if len(inputs) > 1 else
                                          next(iter(inputs.values())), training=False)})
    signature = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, os.fspath(directory), signatures={SIGNATURE: signature})
