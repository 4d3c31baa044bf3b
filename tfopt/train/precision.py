"""A copy of a model that computes in another dtype; its weights stay float32."""

from __future__ import annotations

from tfopt.backend import keras

NAMES = ("float32", "mixed_bfloat16")


def retype(model: keras.Model, policy: str) -> keras.Model:
    """Copies a functional model under a mixed-precision policy.

    Args:
        model: functional; its layers' configs must hold all there is to them.
        policy: "float32" or "mixed_bfloat16". mixed_float16 is refused: it needs loss
            scaling, which tfmot's wrappers break.

    Returns:
        A copy with the same weights in variables of its own. Layers whose outputs are
        the model's stay float32, so that the loss is computed in float32.

    Raises:
        ValueError: the policy is unknown.
    """
    if policy not in NAMES:
        raise ValueError(f"The precision must be one of {NAMES}. Received: {policy!r}")
    outputs = {layer[0] for layer in model.get_config()["output_layers"]}

    def convert(config):
        if isinstance(config, dict):
            return {key: policy if key == "dtype" and value in NAMES
                    else convert(value) for key, value in config.items()}
        if isinstance(config, list | tuple):
            return type(config)(convert(item) for item in config)
        return config

    config = model.get_config()
    config["layers"] = [
        layer if layer["class_name"] == "InputLayer" or layer["config"]["name"]
        in outputs else convert(layer) for layer in config["layers"]]
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    return copy
