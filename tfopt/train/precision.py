"""A copy of a model that computes in another dtype; its weights stay float32."""

from __future__ import annotations

from tfopt import functional
from tfopt.backend import keras, tf

NAMES = ("float32", "mixed_bfloat16")


def best() -> str:
    """The policy that is fastest here: bfloat16 on TPUs and on GPUs that have it."""
    if tf.config.list_logical_devices("TPU"):
        return "mixed_bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    # NVIDIA's have it from compute capability 8.0 on; of others nothing is known.
    have_it = [tf.config.experimental.get_device_details(gpu).get(
        "compute_capability", (0, 0)) >= (8, 0) for gpu in gpus]
    return "mixed_bfloat16" if gpus and all(have_it) else "float32"


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
    outputs = {tensor._keras_history.layer.name for tensor in model.outputs}
    return functional.in_policy(model, policy, outputs)
