"""The one door to TensorFlow, Keras 2 (tf_keras) and tfmot.

tfmot 0.8 knows Keras 2 only, while TensorFlow >= 2.16 hands out Keras 3 as
`tf.keras` unless TF_USE_LEGACY_KERAS is set before the first use. Everything in
tfopt imports `tf`, `keras` and `tfmot` from here, so that the variable is set in
time, in one place.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Start-up notes on oneDNN and missing GPUs; warnings and errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

try:
    import tensorflow as tf  # noqa: E402
except ModuleNotFoundError as error:
    raise ImportError(
        "This needs TensorFlow, which the light installation leaves out; install tfopt "
        f"instead of tfopt-serve. Received: {error}") from error
import tf_keras as keras  # noqa: E402

# Device files of accelerators: NVIDIA's, under Windows' Linux too, AMD's and TPUs.
_DEVICES = ("nvidia*", "dxg", "nvmap", "kfd", "accel*", "vfio/[0-9]*")


@contextlib.contextmanager
def without_lines(part: bytes) -> Iterator[None]:
    """Keeps lines that hold a part off the standard error, whoever writes them.

    All others follow when the block ends.
    """
    standard = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard, 2)
            os.close(standard)
            caught.seek(0)
            for line in caught:
                if part not in line:
                    os.write(2, line)


def look_for_gpus(devices: Path = Path("/dev")) -> None:
    """Has TensorFlow look for GPUs now, where there can be none.

    It does so once, and on a machine without a driver tells of an error (cuInit) that
    is none. Where an accelerator may be, nothing is done and nothing kept off.

    Args:
        devices: directory of the system's devices.
    """
    if devices.is_dir() and not any(
            found for name in _DEVICES for found in devices.glob(name)):
        with without_lines(b"cuInit"):
            tf.config.list_physical_devices("GPU")


def check_keras_2() -> None:
    """Refuses a process in which `tf.keras` already is Keras 3.

    Raises:
        ImportError: TensorFlow was imported, and its Keras 3 used, before tfopt.
    """
    # tf.keras is resolved at its first use: with the variable above set, asking
    # binds Keras 2 unless somebody asked before.
    version = getattr(tf.keras, "__version__", "2")  # Keras 2 has no such name here
    if version.startswith("3"):
        raise ImportError(
            "tfopt works with Keras 2 (tf_keras), and this process has bound "
            "tf.keras to Keras 3 already; set TF_USE_LEGACY_KERAS=1 before the "
            f"first import, or import tfopt first. Received: tf.keras {version}"
        )


check_keras_2()
look_for_gpus()

import tensorflow_model_optimization as tfmot  # noqa: E402

# Neither is there a public name for how soon a worker that died is missed.
from tensorflow.python.distribute.collective_all_reduce_strategy import (  # noqa: E402
    coordination_config_pb2,
)
from tensorflow.python.distribute.cross_device_utils import (  # noqa: E402
    CollectiveReplicaLauncher,
)
from tensorflow.python.eager import context  # noqa: E402

# Not in tfmot's public names, but what `prune_low_magnitude` and `quantize_apply`
# return. Registered so that wrapped models load and copy without tfmot's scopes.
from tensorflow_model_optimization.python.core.quantization.keras import (  # noqa: E402
    quantize_wrapper,
)
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import (  # noqa: E402
    PruneLowMagnitude,
)

# Public is only what turns the guard off for good.
from tf_keras.src.saving.serialization_lib import SafeModeScope  # noqa: E402

# TensorFlow's own limit is minutes, in which all others stand still.
_HEARTBEAT_S = 15


def configure_coordination(jobs: Mapping[str, int]) -> None:
    """Says who is to be alive while training; before a strategy of several workers.

    Args:
        jobs: name -> number of tasks; the first task of the first job leads.
    """
    leader = next(iter(jobs))
    context.context().configure_coordination_service(
        service_type="standalone", service_leader=f"/job:{leader}/replica:0/task:0",
        heartbeat_timeout_in_ms=1000 * _HEARTBEAT_S,
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(
            name=name, num_tasks=count) for name, count in jobs.items()])


QuantizeWrapper = quantize_wrapper.QuantizeWrapperV2
for _wrapper in (PruneLowMagnitude, QuantizeWrapper):
    keras.utils.get_custom_objects()[_wrapper.__name__] = _wrapper


def local(variable: tf.Variable) -> tf.Variable:
    """This replica's copy of a variable, where a strategy mirrors it; else itself.

    For raw operations, which take its handle.
    """
    return variable._get() if hasattr(variable, "_get") else variable


def own_objects() -> SafeModeScope:
    """A context in which a model of this process is copied, its `Lambda` too.

    Keras takes each copy for a file that might run code.
    """
    return SafeModeScope(False)


@contextlib.contextmanager
def constant_collective_keys(constant: bool = True) -> Iterator[None]:
    """Has what is traced within number its sums over replicas once and for all.

    TensorFlow gives each a new number at each call, by which workers that trace anew
    stay together; from the host, for which each device waits. Under XLA, in one
    process, nothing reads it.

    Args:
        constant: whether to; else nothing changes.
    """
    before = CollectiveReplicaLauncher._prefer_unique_instance_key
    CollectiveReplicaLauncher._prefer_unique_instance_key = before and not constant
    try:
        yield
    finally:
        CollectiveReplicaLauncher._prefer_unique_instance_key = before


__all__ = ["PruneLowMagnitude", "QuantizeWrapper", "check_keras_2",
           "configure_coordination", "constant_collective_keys", "keras", "local",
           "own_objects", "tf", "tfmot"]
