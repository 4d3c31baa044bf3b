"""Trainings and recipes, of fixed weights and batches, to be compared between devices.

Run as a script it is one of several workers, which train one kind after another, as to
start takes longer than to train: `same_run.py KINDS OUT STATE [KILL_AT]`. With KILL_AT
it kills itself after that step of the first.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

KINDS = ("plain", "pruning", "distillation", "quantization")
# What a run of a recipe trains, of each kind of pass that trains.
RECIPES = ("magnitude", "structured", "quantized")


def batches(size: int = 8, examples: int = 46):
    """46 examples: the sixth batch of an epoch has six."""
    from tfopt import data

    random = np.random.default_rng(0)
    ids = [[2, *random.integers(4, 103, random.integers(2, 14)).tolist(), 3]
           for _ in range(examples)]
    encoded = data.Encoded(ids=ids, first_lengths=[len(i) for i in ids])
    return data.Batches(encoded, [number % 3 for number in range(examples)],
                        batch_size=size, shuffle_seed=0, pad_to=16)


def build(seed: int = 1):
    """A model without dropout, whose masks differ between replicas."""
    from tfopt import model

    return model.build(model.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=103,
        max_positions=64, initializer_range=0.2, hidden_dropout=0.0,
        attention_dropout=0.0), model.Head(outputs=3, dropout=0.0), seed=seed)


def make(kind: str, scheme: str = "dynamic_wi8_afp32"):
    """The model to train in a strategy's scope, what `fit` takes, and how to end it."""
    from tfopt.compress.passes.magnitude import Magnitude
    from tfopt.compress.passes.quantization_aware import QuantizationAware
    from tfopt.train import Distillation

    built = build()
    if kind == "plain":
        return built, {}
    if kind == "distillation":
        return built, {"goal": Distillation().goal(build(seed=2))}
    made = {"pruning": Magnitude(final_sparsity=0.6, begin_step=2, end_step=14,
                                 frequency=4),
            "quantization": QuantizationAware(scheme=scheme, begin_step=2,
                                              freeze_step=15)}[kind]
    return made.wrap(built), {"callbacks": made.callbacks()}


def run(kind: str, strategy, state_dir=None, epochs: int = 4, dev: bool = False,
        scheme: str = "dynamic_wi8_afp32", examples: int = 46, **settings):
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
    options["callbacks"] = [*options.get("callbacks", []), losses]
    data = batches(examples=examples)
    history = fit(trained, data, data if dev else None, Settings(
        epochs=epochs, learning_rate=1e-4, **settings), state_dir=state_dir, **options)
    return weights_of(trained), history, np.array(losses.found)


def weights_of(trained) -> np.ndarray:
    """All of them in one row."""
    return np.concatenate([w.ravel() for w in trained.get_weights()])


def run_recipe(kind: str, strategy, state_dir=None) -> np.ndarray:
    """Runs a recipe of 24 steps, its heads and neurons from a teacher; its weights."""
    from tfopt import compress
    from tfopt.compress.passes.magnitude import Magnitude
    from tfopt.compress.passes.quantization_aware import QuantizationAware
    from tfopt.compress.passes.structured import Structured
    from tfopt.train import Distillation, Settings

    with strategy.scope():
        start = build()
    step, others = {
        "magnitude": (Magnitude(final_sparsity=0.6, begin_step=2, end_step=14,
                                frequency=4), {}),
        "structured": (Structured(keep=0.6, examples=46, neurons_multiple=4), {
            "teacher": build(seed=2), "distillation": Distillation(hidden_weight=1.0)}),
        "quantized": (QuantizationAware(begin_step=2), {}),
    }[kind]
    outcome, = compress.run(
        start, compress.Recipe(passes=(step,)), compress.Context(
            train=batches(), dev=batches(), state_dir=state_dir,
            settings=Settings(epochs=4, learning_rate=1e-4), **others))
    return weights_of(outcome.model)




def main(kinds: str, out: str, state_dir: str, kill_at: str = "0") -> None:
    """Trains as a worker of TF_CONFIG; leaves OUT/KIND.npz for each kind."""
    import functools
    from pathlib import Path

    from tfopt.pipeline import run_dir
    from tfopt.train import callbacks, loop
    from tfopt.train.distribute import strategy

    class SaveAndKill(callbacks.SaveRunState):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if callbacks.steps_done(self.model) == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)

    # Saved is when the first worker says so; else at the ends of epochs.
    loop.SaveRunState = functools.partial(SaveAndKill, every_s=60 * (kill_at == "0"))
    placed = strategy.strategy("multi_worker", wait_s=60)
    Path(out).mkdir(exist_ok=True)
    for kind in kinds.split(","):
        figures = {}
        if kind in RECIPES:
            weights = run_recipe(kind, placed.strategy, Path(state_dir, kind))
        else:
            weights, history, _ = run(kind, placed.strategy, Path(state_dir, kind),
                                      dev=True)
            figures = {name: [epoch[name] for epoch in history]
                       for name in ("val_loss", "val_accuracy")}
        np.savez(Path(out, f"{kind}.npz"), weights=weights, chief=placed.is_chief,
                 helper=run_dir.is_helper(), **figures)


if __name__ == "__main__":
    from absl import logging

    from tfopt.cli import script as shared  # as scripts do, it waits for the lost

    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    sys.exit(shared.guard(lambda: main(*sys.argv[1:]))([]))
