"""keras.Model -> a SavedModel that plain TensorFlow loads and runs, without tfopt.

It has one graph, for inference, at any batch and length, and the model's weights: of a
sparse layer (`tfopt.sparse`) the values and where they are, no kernel with zeros.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tfopt import checks
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
        ValueError: `check` refuses the model.
        OSError: the disk is full or not writable; what was there stays.
    """
    check(model)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_directory(path.parent) as temporary:
        whole = temporary / "whole"
        save(model, whole)
        if path.exists():
            shutil.rmtree(path)
        os.replace(whole, path)


def check(model: keras.Model) -> None:
    """Checks that a model can be exported.

    Raises:
        ValueError: it is not functional, has several outputs, is wrapped for training,
            or has a weight that is no finite number.
    """
    checks.check_one_output(model)
    checks.check_stripped(model)
    checks.check_finite(model)


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
    nested = model._nested_inputs
    # A dictionary's own keys, in which order its inputs are flattened.
    names = sorted(nested) if isinstance(nested, dict) else model.input_names
    for name, tensor in zip(names, model.inputs, strict=True):
        first, *others = tensor.shape
        specs[name] = tf.TensorSpec(
            [batch or first, *(length if axis is None else axis for axis in others)],
            tensor.dtype, name=name)
    module = tf.Module()
    # Not the model: Keras would trace each layer anew, three times the whole work.
    module.weights = model.weights
    module.serve = tf.function(
        lambda **inputs: {"logits": model(
            inputs if len(inputs) > 1 or isinstance(nested, dict)
            else next(iter(inputs.values())), training=False)})
    signature = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, os.fspath(directory), signatures={SIGNATURE: signature})
