"""Where training runs: a flag's word -> `tf.distribute.Strategy`."""

from __future__ import annotations

import functools

from tfopt.backend import tf

NAMES = ("auto", "one_device", "mirrored")


def make(name: str = "auto") -> tf.distribute.Strategy:
    """Makes the strategy; build the model under its `scope()`.

    Args:
        name: "one_device", the first accelerator or the CPU; "mirrored", every GPU,
            or where there is none every logical CPU; "auto", "mirrored" where there
            are several GPUs and "one_device" elsewhere.

    Returns:
        The strategy; TensorFlow's default one for a single device, and the same
        mirrored one at each call.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"A strategy must be one of {NAMES}. Received: {name!r}")
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # One a process: every strategy numbers its collectives from the same start, so a
    # second one over the same devices runs into the first one's.
    return tf.distribute.MirroredStrategy(devices)
