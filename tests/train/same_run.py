"""Four trainings, of fixed weights and batches, to be compared between devices.

Run as a script it is one of several workers, which train one kind after another, as to
start takes longer than to train: `same_run.py KINDS OUT STATE [KILL_AT]`.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

KINDS = ("plain", "pruning", "distillation", "quantization")


def batches(size: int = 8, examples: int = 46):
    """46 examples: the sixth batch of an epoch has six."""
    from tfopt import data

    random = np.random.default_rng(0)
    ids = [[2, *random.integers(4, 103, random.integers(2, 14)).tolist(), 3]
           for _ in range(examples)]
    encoded = data.Encoded(ids=ids, first_lengths=[len(i) for i in ids])
    return data.Batches(encoded, [number % 3 for number in range(examples)],
                        batch_size=size, shuffle_seed=0, pad_to=16)


def make(kind: str, scheme: str = "dynamic_wi8_afp32"):
    """The model to train in a strategy's scope, what `fit` takes, and how to end it."""
    from tfopt import model
    from tfopt.compress.passes.magnitude import Magnitude
    from tfopt.compress.passes.quantization_aware import QuantizationAware
    from tfopt.train import Distillation

    config = model.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=103,
        max_positions=64, initializer_range=0.2, hidden_dropout=0.0,
        attention_dropout=0.0)
    built = model.build(config, model.Head(outputs=3, dropout=0.0), seed=1)
    if kind == "plain":
        return built, {}
    if kind == "distillation":
        teacher = model.build(config, model.Head(outputs=3, dropout=0.0), seed=2)
        return built, {"goal": Distillation().goal(teacher)}
    made = {"pruning": Magnitude(final_sparsity=0.6, begin_step=2, end_step=14,
                                 frequency=4),
            "quantization": QuantizationAware(scheme=scheme, begin_step=2,
                                              freeze_step=15)}[kind]
    return made.wrap(built), {"callbacks": made.callbacks()}


def run(kind: str, strategy, state_dir=None, epochs: int = 4, dev: bool = False,
        callbacks=(), scheme: str = "dynamic_wi8_afp32", examples: int = 46,
        **settings):
    """Trains some 20 steps; returns (weights in one row, history, losses by step)."""
    from tfopt.backend import keras
    from tfopt.train import Settings, fit

    class Losses(keras.callbacks.Callback):
        found: list[float] = []

        def on_train_batch_end(self, batch, logs=None):
            self.found.append(logs["loss"])

    with strategy.scope():
        trained, options = make(kind, scheme)
    losses = Losses()
    losses.found = []
    options["callbacks"] = [*options.get("callbacks", []), losses, *callbacks]
    data = batches(examples=examples)
    history = fit(trained, data, data if dev else None, Settings(
        epochs=epochs, learning_rate=1e-4, **settings), state_dir=state_dir, **options)
    return (np.concatenate([w.ravel() for w in trained.get_weights()]), history,
            np.array(losses.found))


def main(kinds: str, out: str, state_dir: str, kill_at: str = "0") -> None:
    """Trains as a worker of TF_CONFIG; leaves OUT/KIND.npz for each kind."""
    import functools
    from pathlib import Path

    from tfopt.backend import keras
    from tfopt.pipeline import run_dir
    from tfopt.train import callbacks, loop
    from tfopt.train.distribute import strategy

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if callbacks.steps_done(self.model) == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)

    loop.SaveRunState = functools.partial(callbacks.SaveRunState, every_s=0)
    placed = strategy.strategy("multi_worker", wait_s=60)
    Path(out).mkdir(exist_ok=True)
    for kind in kinds.split(","):
        weights, history, _ = run(kind, placed.strategy, Path(state_dir, kind),
                                  dev=True, callbacks=[Kill()])
        np.savez(Path(out, f"{kind}.npz"), weights=weights,
                 val_loss=[e["val_loss"] for e in history],
                 val_accuracy=[e["val_accuracy"] for e in history],
                 chief=placed.is_chief, helper=run_dir.is_helper())


if __name__ == "__main__":
    from absl import logging

    from tfopt.cli import script as shared  # as scripts do, it waits for the lost

    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    sys.exit(shared.guard(lambda: main(*sys.argv[1:]))([]))
