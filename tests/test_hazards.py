"""Traps of the platform, one a test, and what we do about each.

Where a test shows that a trap is still there and it fails, the trap is gone: take out
what we do about it.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from tfopt import backend
from tfopt import model as models
from tfopt.backend import keras, tf, tfmot
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.movement import Movement
from tfopt.compress.pruning.schedules import Schedule
from tfopt.export import calibrate, schemes, tflite
from tfopt.export.interpreter import Interpreter, thread_counts
from tfopt.model import attention, layers
from tfopt.train import Settings, fit
from tfopt.train.distribute import strategy

PolynomialDecay = tfmot.sparsity.keras.PolynomialDecay


def dense() -> keras.Model:
    inputs = keras.Input([4])
    return keras.Model(inputs, keras.layers.Dense(2)(inputs))


def train(wrapped: keras.Model, callbacks) -> None:
    wrapped.compile(keras.optimizers.SGD(0.1), "mse")
    wrapped.fit(np.eye(4), np.ones([4, 2]), epochs=3, verbose=0, callbacks=callbacks)


PRUNING = Magnitude(final_sparsity=0.5, end_step=2, frequency=1)


@pytest.mark.parametrize("wrap,callbacks,shares", [
    (tfmot.sparsity.keras.prune_low_magnitude,
     [tfmot.sparsity.keras.UpdatePruningStep()], True),
    (PRUNING.wrap, PRUNING.callbacks(), False),
])
def test_tfmot_wraps_the_very_variables_it_is_given(wrap, callbacks, shares):
    """Training what `prune_low_magnitude` returns trains the original: we copy."""
    model = dense()
    before = model.get_weights()
    train(wrap(model), callbacks)
    moved = [np.abs(now - then).max() > 1e-3
             for now, then in zip(model.get_weights(), before, strict=True)]
    assert moved == [shares, shares]


def test_tfmot_schedule_of_no_length_prunes_by_nan():
    """`PolynomialDecay` divides by end - begin: ours prunes once."""
    _, sparsity = PolynomialDecay(0.0, 0.5, begin_step=3, end_step=3)(tf.constant(3))
    assert np.isnan(sparsity)
    ours = Schedule(final_sparsity=0.5, begin_step=3, end_step=3)
    assert [ours.sparsity(step) for step in (2, 3, 4)] == [0.0, 0.5, 0.5]


def test_tfmot_schedule_passes_over_an_end_off_its_beat():
    """It prunes at begin + k * frequency only: ours at the end as well."""
    due, sparsity = PolynomialDecay(0.0, 0.5, begin_step=0, end_step=10, frequency=4)(
        tf.range(20))
    np.testing.assert_array_equal(np.flatnonzero(due), [0, 4, 8])
    assert sparsity[due][-1] < 0.5
    ours = Schedule(final_sparsity=0.5, end_step=10, frequency=4)
    assert [step for step in range(20) if ours.due(step)] == [0, 4, 8, 10]


def test_tfmot_schedule_does_not_come_back_from_its_config():
    """`ConstantSparsity.from_config(get_config())` fails: the fields are our record."""
    constant = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    with pytest.raises(TypeError):
        type(constant).from_config(constant.get_config())
    ours = Schedule(kind="constant", final_sparsity=0.5, end_step=9).to_tfmot()
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()


class Eye:
    """Four examples, four times."""

    batch_size, steps_per_epoch = 4, 4

    def dataset(self, epochs=1, first_step=0):
        return tf.data.Dataset.from_tensors(
            (tf.eye(4), tf.constant([0, 1, 0, 1]))).repeat(4)


def test_pruning_compiles_by_xla():
    """On one device; on two logical CPUs nothing does that has variables."""
    pruning = Movement(final_sparsity=0.75, begin_step=1, end_step=4, frequency=1)
    wrapped = pruning.wrap(dense())
    fit(wrapped, Eye(), settings=Settings(epochs=1, jit_compile=True),
        callbacks=pruning.callbacks())
    kernel = pruning.strip(wrapped).get_weights()[0]
    assert np.count_nonzero(kernel) == 2
    assert not Settings().jit_compile


def test_litert_computes_sparse_int8_kernels_wrong(monkeypatch):
    """By XNNPACK, which it uses by default: we offer no sparse int8 file."""
    sparse = schemes.Scheme(name="sparse", optimizations=("DEFAULT",
                                                          "EXPERIMENTAL_SPARSITY"))
    model = models.build(models.EncoderConfig.uniform(
        hidden_size=64, num_layers=2, num_heads=2, intermediate_size=256,
        vocab_size=103, max_positions=64, initializer_range=0.2),
        models.Head(outputs=3))
    pruned = Magnitude(final_sparsity=0.8, pattern="16x1").prune_at_once(model)
    ids = np.arange(4, 25, dtype=np.int32)[None]
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids),
              "token_type_ids": np.zeros_like(ids)}
    monkeypatch.setitem(schemes._SCHEMES, "dynamic_wi8_afp32", sparse)
    contents = tflite.convert(pruned)
    errors = {}
    for kind in (litert.OpResolverType.AUTO,
                 litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        runner = litert.Interpreter(
            model_content=contents, experimental_op_resolver_type=kind
        ).get_signature_runner()
        errors[kind.name] = np.abs(runner(**inputs)["logits"] - pruned(inputs)).max()
    assert errors["BUILTIN_WITHOUT_DEFAULT_DELEGATES"] < 0.1
    assert errors["AUTO"] > 0.2


def saved_names(model: keras.Model, directory) -> str:
    path = tf.train.Checkpoint(model=model).save(directory / "state")
    return " ".join(name for name, _ in tf.train.list_variables(path))


@pytest.mark.parametrize("kind,kept", [
    (keras.layers.Dropout, False), (layers.Dropout, True)])
def test_dropout_state_is_kept_out_of_checkpoints(kind, kept, tmp_path):
    """A resumed run would draw other masks: ours tracks its generator."""
    inputs = keras.Input([4])
    names = saved_names(keras.Model(inputs, kind(0.5)(inputs)), tmp_path)
    assert ("generator" in names) is kept


@pytest.fixture(scope="module")
def exports() -> dict[str, bytes]:
    """Scheme -> a small BERT, converted."""
    model = models.build(models.EncoderConfig.uniform(
        hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64,
        vocab_size=103, max_positions=64), models.Head(outputs=3))
    calibration = calibrate.examples_of([[2, *range(4, 20), 3], [2, 30, 3]], [18, 2])
    return {scheme: tflite.convert(model, scheme, calibration=calibration)
            for scheme in tflite.SCHEMES}


def parse(contents: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromPackedBuf(contents, 0)


def constants(contents: bytes, *dtypes: type) -> list[np.ndarray]:
    """The constant tensors of some dtypes in a `.tflite`."""
    kinds = {getattr(schema.TensorType, np.dtype(dtype).name.upper()): dtype
             for dtype in dtypes}
    model = parse(contents)
    found = [(model.buffers[tensor.buffer].data, tensor) for graph in model.subgraphs
             for tensor in graph.tensors if tensor.type in kinds]
    return [np.asarray(data).view(kinds[tensor.type]).reshape(tensor.shape)
            for data, tensor in found if data is not None and len(data)]


def floats(contents: bytes) -> np.ndarray:
    """The numbers of all constants that are not quantized, in one row."""
    found = constants(contents, np.float32, np.float16)
    return np.concatenate([np.zeros([0]), *(c.ravel() for c in found)])


def test_an_infinite_mask_becomes_the_lowest_float():
    """An int8 range of 3e38 leaves nothing of the scores: we mask by -100."""
    masked = tf.function(lambda x: tf.where(x > 0, x, -np.inf),
                         [tf.TensorSpec([4], tf.float32)])
    contents = tf.lite.TFLiteConverter.from_concrete_functions(
        [masked.get_concrete_function()]).convert()
    assert floats(contents).min() < -3e38
    assert attention.HIDDEN_SCORE == -100.0


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_no_constant_of_an_export_is_huge(exports, scheme):
    """The mask comes out of the converter as it was put in, or in int8."""
    largest = np.abs(floats(exports[scheme])).max(initial=0.0)
    assert largest == (0 if scheme == "integer_wi8_ai8" else -attention.HIDDEN_SCORE)


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_exports_have_built_in_operations_alone(exports, scheme):
    """A flex op would need all of TensorFlow in the interpreter."""
    codes = parse(exports[scheme]).operatorCodes
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    used = {names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in codes}
    assert {"FULLY_CONNECTED", "GATHER"} <= used
    assert "CUSTOM" not in used
    assert not any(code.customCode for code in codes)


@pytest.mark.parametrize("scheme", [s for s in tflite.SCHEMES if "wi8" in s])
def test_int8_export_has_its_embedding_table_in_int8(scheme, exports):
    """Some quantizers leave it in float32, most of a small model's bytes."""
    contents = exports[scheme]
    assert (103, 32) in [c.shape for c in constants(contents, np.int8)]
    assert (103, 32) not in [c.shape for c in constants(contents, np.float32)]


@pytest.mark.parametrize("asked", [None, 3])
def test_litert_takes_one_thread_unless_told(exports, tmp_path, monkeypatch, asked):
    """Our `Interpreter` always tells: by default, after trying up to every core."""
    assert inspect.signature(litert.Interpreter).parameters[
        "num_threads"].default is None
    told = []

    class Spy(litert.Interpreter):
        def __init__(self, *args, num_threads=None, **kwargs):
            told.append(num_threads)
            super().__init__(*args, num_threads=num_threads, **kwargs)

    monkeypatch.setattr(litert, "Interpreter", Spy)
    file = tmp_path / "model.tflite"
    file.write_bytes(exports["float32"])
    Interpreter(file, num_threads=asked)
    counts = thread_counts(len(os.sched_getaffinity(0)))
    if asked is None and len(counts) > 1:
        assert told[:-1] == counts and told[-1] in counts
    else:
        assert told == [asked or 1]


def run_python(*lines: str) -> tuple[int, str]:
    """Runs a script in a process that was told nothing about Keras."""
    environment = {name: value for name, value in os.environ.items()
                   if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], text=True,
                          capture_output=True, env=environment, timeout=120)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_second_mirrored_strategy_runs_into_the_first():
    """Both number their collectives from the same start: `make` gives one a process."""
    code, said = run_python(
        "from tfopt.backend import tf",
        "from tfopt.train import strategy",
        "tf.config.set_logical_device_configuration(",
        "    tf.config.list_physical_devices('CPU')[0],",
        "    [tf.config.LogicalDeviceConfiguration()] * 2)",
        "def total(both, size):",
        "    return tf.function(lambda: both.run(",
        "        lambda: tf.distribute.get_replica_context().all_reduce(",
        "            'SUM', tf.ones([size]))))().values[1].numpy().tolist()",
        "assert total(strategy.make('mirrored'), 3) == [2.0] * 3",
        "assert total(strategy.make('mirrored'), 5) == [2.0] * 5",
        "print('ours is well')",
        "total(tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']), 7)")
    assert "ours is well" in said, said
    assert "cuInit" not in said  # of a machine without a GPU, where it is no error
    assert code == 1
    assert "Shape mismatch in the collective instance" in said


def test_sums_over_replicas_are_numbered_by_the_host_at_each_call():
    """For which an accelerator waits: within the context they are numbered once."""
    both = strategy.make("mirrored")
    numbers = []
    for constant in (False, True):
        def total():
            return both.run(lambda: tf.distribute.get_replica_context().all_reduce(
                "SUM", tf.ones([3])))

        with backend.constant_collective_keys(constant):
            traced = tf.function(total).get_concrete_function()
        numbers.append(len(traced.captured_inputs))
        for _ in range(2):
            assert traced().values[1].numpy().tolist() == [2.0] * 3
    assert numbers[1] == numbers[0] - 2  # one of each replica


def test_keras_3_bound_before_us_is_refused():
    """The tfmot of today knows Keras 2 only, and would fail much later, in riddles."""
    code, said = run_python("import tensorflow as tf", "tf.keras.__version__",
                            "import tfopt.backend")
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith("ImportError: tfopt works with Keras 2")
    assert "import tfopt first. Received: tf.keras 3" in last


@pytest.mark.parametrize("first,second", [
    ("import tensorflow as tf", "import tfopt.backend"),
    ("import tfopt", "import tensorflow as tf"),
])
def test_tf_keras_is_keras_2_in_either_order(first, second):
    """TensorFlow binds `tf.keras` at its first use: we set the variable before it."""
    code, said = run_python(first, second, "import tf_keras",
                            "assert tf.keras.Model is tf_keras.Model")
    assert code == 0, said


def test_serving_imports_no_tensorflow():
    """It costs seconds and most of a small server's memory: imported when needed."""
    code, said = run_python(
        "import sys, tfopt, tfopt.export.interpreter, tfopt.serve, tfopt.tasks",
        "import ai_edge_litert.interpreter",
        "assert tfopt.Interpreter and tfopt.data.WordPiece and tfopt.Bundle",
        "assert tfopt.tasks.all_tasks()",
        "assert not {'tensorflow', 'tf_keras', 'keras'} & set(sys.modules)")
    assert code == 0, said


def test_lines_are_kept_off_by_what_they_hold(capfd):
    with backend.without_lines(b"cuInit"):
        os.write(2, b"E cuda: failed call to cuInit: 303\nE another error\n")
        os.write(2, b"W a warning")
    assert capfd.readouterr().err == "E another error\nW a warning"
    with pytest.raises(ZeroDivisionError), backend.without_lines(b"cuInit"):
        os.write(2, b"before it failed\n")
        1 / 0  # noqa: B018
    assert capfd.readouterr().err == "before it failed\n"


@pytest.mark.parametrize(("device", "looked"), [
    (None, 1), ("nvidia0", 0), ("nvidiactl", 0), ("accel0", 0), ("dxg", 0)])
def test_errors_of_machines_with_accelerators_are_left_alone(device, looked, tmp_path,
                                                             monkeypatch):
    seen = []
    monkeypatch.setattr(tf.config, "list_physical_devices", seen.append)
    if device:
        (tmp_path / device).touch()
    backend.look_for_gpus(tmp_path)
    assert seen == ["GPU"] * looked
    backend.look_for_gpus(tmp_path / "none")
    assert seen == ["GPU"] * looked
