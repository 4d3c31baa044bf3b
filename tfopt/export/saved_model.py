"""keras.Model -> a SavedModel that plain TensorFlow loads and runs, without tfopt.

It has one graph, for inference, at any batch and length, and the model's weights: of a
sparse layer (`tfopt.sparse`) the values and where they are, no kernel with zeros.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tfopt.backend import keras, tf
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
    if not getattr(model, "_is_graph_network", False) or len(model.outputs) != 1:
        raise ValueError("A model must be functional, with one output. Received: "
                         f"{type(model).__name__} {model.name!r} with outputs "
                         f"{model.outputs}")
    specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
             for name, tensor in zip(model.input_names, model.inputs, strict=True)}
    module = tf.Module()
    # Not the model: Keras would trace each layer anew, for training, too.
    module.weights = model.weights
    module.serve = tf.function(
        lambda **inputs: {"logits": model(inputs if len(inputs) > 1 else
                                          next(iter(inputs.values())), training=False)})
    signature = module.serve.get_concrete_function(**specs)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as temporary:
        whole = os.path.join(temporary, "whole")
        tf.saved_model.save(module, whole, signatures={SIGNATURE: signature})
        if path.exists():
            shutil.rmtree(path)
        os.replace(whole, path)
