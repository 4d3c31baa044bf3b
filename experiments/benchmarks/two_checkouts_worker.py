"""One checkout's side of two_checkouts.py: exports a model, then trains when asked.

Only names that every edition has are used: the other checkout may be an old one.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import protocol

import tfopt
from tfopt import model, train
from tfopt.backend import keras
from tfopt.types import INPUT_NAMES


def main() -> None:
    """Exports, tells the hashes, then answers {"steps": n} with their seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir", help="as tfopt.model.load takes it")
    parser.add_argument("place", type=Path, help="has examples.npz; takes the exports")
    parser.add_argument("name", help="of the directory for the exports")
    parser.add_argument("batch_size", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("exports", nargs="+")
    arguments = parser.parse_args()
    channel = protocol.Channel()
    with np.load(arguments.place / "examples.npz") as arrays:
        examples = [{name: arrays[f"{name}_{number}"] for name in INPUT_NAMES}
                    for number in range(int(arrays["count"]))]
    keras_model = model.load(arguments.model_dir)
    out, hashes = arguments.place / arguments.name, {}
    out.mkdir()
    for scheme in arguments.exports:
        contents = tfopt.convert(keras_model, scheme, calibration=examples)
        (out / f"{scheme}.tflite").write_bytes(contents)
        hashes[scheme] = hashlib.sha256(contents).hexdigest()
    random = np.random.default_rng(0)
    shape = [arguments.batch_size, arguments.tokens]
    batch = dict(zip(INPUT_NAMES, (
        random.integers(1000, 20000, shape).astype(np.int32), np.ones(shape, np.int32),
        np.zeros(shape, np.int32)), strict=True))
    labels = random.integers(keras_model.output_shape[-1],
                             size=arguments.batch_size).astype(np.int32)
    keras_model.compile(train.AdamW(1e-5), keras.losses.SparseCategoricalCrossentropy(
        from_logits=True))
    channel.say(ready=True, sha256=hashes)
    with train.lean_step(keras_model, jit_compile=False):
        for request in channel.requests():
            seconds = []
            for _ in range(request["steps"]):
                start = time.perf_counter()
                keras_model.train_on_batch(batch, labels)
                seconds.append(time.perf_counter() - start)
            channel.say(seconds=seconds)


if __name__ == "__main__":
    main()
