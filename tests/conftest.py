"""Set-up shared by all tests: two logical CPUs, the tiny checkpoint, tiny batches."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from tfopt import data, model
from tfopt.backend import keras, tf
from tfopt.export import converter

GOLDENS = Path(__file__).parent / "goldens"

# No test asks the network for a checkpoint, by mistake, say: org/name may be a
# directory's name that is misspelled. `huggingface_hub` reads this when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# Must happen before TensorFlow computes anything: MirroredStrategy is tested on two
# logical devices of one CPU.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2)
# The tests' matrices are too small to be shared out; the other core has a worker of
# pytest of its own.
tf.config.threading.set_intra_op_parallelism_threads(1)
# What improves a graph takes a quarter of the time of training a tiny model. Workers of
# tests/train/test_same_on_devices.py and scripts have it, and the former are compared
# with what is trained here without.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# Longest first, else two workers end minutes apart; to be had with
# `--dist=loadfile --no-loadscope-reorder`.
LONGEST = ("train/test_same_on_devices", "compress/test_quantization_aware",
           "test_conformance", "cli/", "test_training_scripts", "export/test_tflite",
           "compress/test_vocabulary", "compress/test_teacher", "export/test_trained",
           "test_shrunk_latency", "train/", "compress/", "measure/", "test_")


def pytest_collection_modifyitems(items):
    """Sorts files by how long they take; within a file nothing moves."""
    def place(item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((number for number, start in enumerate(LONGEST)
                     if path.startswith(start)), len(LONGEST))

    items.sort(key=place)


def pytest_collection_finish():
    """Has Python look through TensorFlow's million objects no more than once.

    They stay to the end; tracing makes so many more that the collector, as it is, went
    through all of them again and again: a tenth of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Gives every test, and what it sets up, the same random weights in every run."""
    keras.utils.set_random_seed(0)


class Conversions:
    """The same model is converted in the same way once, whichever tests ask for it.

    Attributes:
        kept: whether a file that was made before will do.
    """

    def __init__(self):
        self.kept, self._convert, self._files = True, converter.to_bytes, {}

    def to_bytes(self, model: keras.Model, **options) -> bytes:
        """As `tfopt.export.converter.to_bytes`."""
        if not self.kept:
            return self._convert(model, **options)
        try:
            parts = [model.to_json(), repr(sorted(options.items()))]
        except Exception:  # a layer without a configuration, or a wrapped one
            return self._convert(model, **options)
        whole = hashlib.sha256("".join(parts).encode())
        for weight in model.get_weights():
            whole.update(np.ascontiguousarray(weight).tobytes())
        key = whole.digest()
        if key not in self._files:
            self._files[key] = self._convert(model, **options)
        return self._files[key]


@pytest.fixture(scope="session", autouse=True)
def conversions():
    """What has been converted."""
    made = Conversions()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "to_bytes", made.to_bytes)
        yield made


@pytest.fixture
def converted_anew(conversions):
    """Every conversion of a test that is about conversion itself takes place."""
    conversions.kept = False
    yield
    conversions.kept = True


@pytest.fixture(scope="session")
def tiny_dir() -> Path:
    """A Hugging Face directory: 3 layers, width 32, 3 labels, 103 words."""
    return GOLDENS / "tiny_bert"


@pytest.fixture(scope="session")
def tiny_outputs() -> dict[str, np.ndarray]:
    """Inputs and reference outputs of the tiny checkpoint."""
    with np.load(GOLDENS / "tiny_bert_outputs.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def minilm_outputs() -> dict[str, np.ndarray]:
    """Inputs and reference outputs of all-MiniLM-L6-v2."""
    with np.load(GOLDENS / "minilm_outputs.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def token_ids() -> dict:
    """Texts, and the token ids expected for them."""
    return json.loads((GOLDENS / "token_ids.json").read_text(encoding="utf-8"))


@pytest.fixture
def tiny_model(tiny_dir):
    """The tiny checkpoint as a fresh model."""
    return model.load(tiny_dir)


@pytest.fixture(scope="session")
def tiny_examples() -> tuple[data.Encoded, list[int]]:
    """48 examples of 3 classes that a tiny model can learn, of several lengths."""
    random = np.random.default_rng(0)
    ids, class_ids = [], []
    for number in range(48):
        label = number % 3
        words = random.integers(20, 40, random.integers(2, 14)) + 20 * label
        ids.append([2, *words.tolist(), 3])
        class_ids.append(label)
    return data.Encoded(ids=ids, first_lengths=[len(i) for i in ids]), class_ids


@pytest.fixture
def tiny_batches(tiny_examples) -> data.Batches:
    """The tiny examples, 6 batches of 8 an epoch."""
    encoded, class_ids = tiny_examples
    return data.Batches(encoded, class_ids, batch_size=8, shuffle_seed=0)


@contextlib.contextmanager
def _largest_file(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so that a write fails with EFBIG.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def full_disk():
    """Makes a context in which no file of this process grows above so many bytes.

    For the statement under test alone: pytest's own output may go to a file.
    """
    return _largest_file
