"""The one caller of `Model.fit`: batches in, a trained model out.

Fine-tuning, and every pass that trains, go through `fit`: AdamW with warm-up and
decay, clipping, the best epoch on dev, early stopping, logs, resuming, and an end at
the first loss that is no number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from tfopt import functional, switches, xla
from tfopt.backend import keras, tf
from tfopt.train import objective, precision
from tfopt.train.callbacks import (
    KeepBest,
    PaddedLossCorrection,
    ProgressLine,
    SaveRunState,
    StopOnNonFinite,
    TrainingLog,
)
from tfopt.train.distribute import sharding, workers
from tfopt.train.learning_rate import WarmupLinearDecay
from tfopt.train.optimizer import AdamW
from tfopt.train.run_state import RunState
from tfopt.train.settings import Settings
from tfopt.train.steps_per_execution import MultiStepModel, StepsPerExecution
from tfopt.types import BatchSource, PathLike

# Biases and the gamma and beta of LayerNorm do not decay.
_UNDECAYED = [r"(bias|gamma|beta):\d+$"]


def fit(
    model: keras.Model,
    train: BatchSource,
    dev: BatchSource | None = None,
    settings: Settings = Settings(),  # noqa: B008
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    state_dir: PathLike | None = None,
    log_dir: PathLike | None = None,
    goal: objective.Objective | None = None,
    first_valid_step: int = 0,
) -> list[dict[str, float]]:
    """Trains a model in place.

    Args:
        model: functional, from the inputs of `train` to outputs <float>[B, C]; built in
            a strategy's scope, it is trained under that.
        train: what to learn from.
        dev: chooses the best epoch; without it the last one stays.
        settings: how to train.
        callbacks: more Keras callbacks, such as a pruning pass's.
        state_dir: where the run's state is kept; a second call with the same directory
            goes on where the first was killed.
        log_dir: where the files of `settings.trackers` go; None tracks nothing.
        goal: what to minimize, such as `Distillation.goal`; default cross-entropy.
        first_valid_step: step before which no epoch counts as the best, since the model
            is not in its final form yet (a pruning ramp still rises).

    Returns:
        The figures of each epoch: loss, the metrics of `goal` (accuracy) and, with
        `dev`, the same of it, such as val_loss and val_accuracy.

    Raises:
        FloatingPointError: the loss is not finite; names the step.
        ValueError: the model's output or the batches are not what the loss is of, such
            as probabilities, or classes one-hot or above the outputs; the replicas do
            not divide a batch; or workers are asked to train in different ways.
    """
    settings = settings.on_this_machine()
    goal = goal or objective.cross_entropy()
    _check(model, (train, dev), goal)
    retyped = settings.mixed_precision != "float32" or functional.is_mixed(model)
    working = _working(model, train, settings, goal, retyped)
    state = _begun(working, train, settings, callbacks, state_dir)
    if not state.finished:
        hooks = _hooks(state, model.distribute_strategy, train, dev, settings, goal,
                       callbacks, log_dir, first_valid_step)
        with lean_step(working, bool(settings.jit_compile), goal.reads_layers):
            _run(working, state, train, dev, settings, hooks)
        state.finished = True
        state.save()
    state.load_best()
    if retyped:
        model.set_weights(working.get_weights())
    return state.history


def _check(model, sources, goal) -> None:
    goal.check(model)
    strategy = model.distribute_strategy
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        raise ValueError(
            "`fit` needs callbacks between steps, which Keras does not offer with "
            "parameter servers; use the strategy 'multi_worker'. Received: a model of "
            "the strategy 'parameter_server'")
    for source in sources:
        if source is not None:
            goal.check_batches(source, model)
            sharding.check_divides(source.batch_size, strategy.num_replicas_in_sync)


def _working(model, train, settings, goal, retyped: bool) -> keras.Model:
    """What is trained: of the same layers, unless they are to compute in other types.

    So the caller's model is left without an optimizer, whose moments would triple the
    file it is saved to.
    """
    with model.distribute_strategy.scope():
        working = keras.Model(model.input, model.outputs, name=model.name)
        if retyped:
            working = precision.retype(working, settings.mixed_precision)
        working = goal.prepare(
            MultiStepModel(working.input, working.outputs, name=model.name),
            settings.mixed_precision)
        _compile(working, train, settings, goal)
    return working


def _begun(working, train, settings, callbacks, state_dir) -> RunState:
    """The run's state, of its beginning or of where it was killed."""
    state = RunState(working, state_dir)
    workers.check_same(
        working.distribute_strategy, repr((
            settings, train.steps_per_epoch, train.batch_size, _about(
                working, callbacks))),
        "All workers must train the same way: the same flags, recipe and data.",
        f"{settings}, {train.steps_per_epoch} steps of {train.batch_size} examples")
    if state.restore():
        logging.info("Resumed at step %d from %s", state.step, state_dir)
    else:
        seed_dropout(working, settings.seed)
    return state


def _hooks(state, strategy, train, dev, settings, goal, callbacks, log_dir,
           first_valid_step) -> list[keras.callbacks.Callback]:
    """The caller's callbacks, and those of every training."""
    hooks = [StopOnNonFinite(), *callbacks]
    agree: dict[str, Any] = {} if workers.count(strategy) == 1 else {
        "agree": functools.partial(workers.chiefs_word, strategy)}
    if dev is not None and strategy.num_replicas_in_sync > 1:
        hooks.insert(0, PaddedLossCorrection(dev))
    if log_dir is not None and workers.is_chief(strategy):
        hooks.append(TrainingLog(
            Path(log_dir), train.batch_size, names=settings.trackers,
            params=dataclasses.asdict(settings) | {"batch_size": train.batch_size}))
    if not sys.stdout.isatty():
        hooks.append(ProgressLine(train.batch_size))
    hooks += [KeepBest(state, settings.patience, first_valid_step, goal.monitor),
              SaveRunState(state, **agree)]
    steps = settings.steps_per_execution or 1
    if steps > 1:
        hooks.append(StepsPerExecution(steps, hooks))
    return hooks


@contextlib.contextmanager
def lean_step(model: keras.Model, jit_compile: bool,
              all_tokens: bool = False) -> Iterator[None]:
    """Has a model compute no more than its training step needs, within the context.

    For a training loop of one's own; `fit` does so by itself.

    Args:
        model: whose step is traced within the context.
        jit_compile: whether XLA compiles the step (`xla.written_for`).
        all_tokens: whether the last layer's are all read, as where hidden states are
            compared; else the head's first token is computed alone.
    """
    with contextlib.ExitStack() as stack:
        if not all_tokens:
            stack.enter_context(switches.on(model, "first_alone"))
        if jit_compile:
            stack.enter_context(xla.written_for(model))
        yield


def seed_dropout(model: keras.Model, seed: int) -> None:
    """Sets the random state of every dropout layer, so that a seed fixes a run."""
    generators = [module for module in model.submodules
                  if isinstance(getattr(module, "generator", None),
                                tf.random.Generator)]
    for number, module in enumerate(generators):
        module.generator.reset_from_seed(seed * 1_000_003 + number)


def _about(model, callbacks) -> list:
    """What distinguishes two trainings."""
    return [*((w.name, tuple(w.shape)) for w in model.weights),
            *(type(callback).__name__ for callback in callbacks)]


def _compile(model, train, settings, goal) -> None:
    total = train.steps_per_epoch * settings.epochs
    optimizer = AdamW(
        WarmupLinearDecay(settings.learning_rate, int(settings.warmup * total), total),
        weight_decay=settings.weight_decay, global_clipnorm=settings.clip_norm,
        dense=settings.jit_compile or None)
    optimizer.exclude_from_weight_decay(var_names=_UNDECAYED)
    optimizer.build(goal.trained_variables(model))
    model.compile(optimizer, goal.loss(), weighted_metrics=goal.metrics(),
                  # A TPU compiles what it runs in any case.
                  jit_compile=settings.jit_compile and not isinstance(
                      model.distribute_strategy, tf.distribute.TPUStrategy),
                  steps_per_execution=settings.steps_per_execution)


def _run(model, state, train, dev, settings, hooks) -> None:
    steps, epochs = train.steps_per_epoch, settings.epochs
    strategy = model.distribute_strategy
    whole = settings.jit_compile or strategy.num_replicas_in_sync > 1
    epoch, done = divmod(state.step, steps)
    # The epoch a resumed run starts in is finished by a call of its own: within one
    # call of Model.fit all epochs have the same number of steps.
    parts = [(epoch, epoch + 1, steps - done)] if done else []
    parts.append((epoch + bool(done), epochs, steps))
    for first, last, part_steps in parts:
        if first >= last or model.stop_training:
            continue
        batches = train.dataset(epochs, state.step)
        dev_batches = None if dev is None else dev.dataset()
        if whole:
            batches = sharding.of(batches, train.batch_size, strategy)
        if dev is not None and strategy.num_replicas_in_sync > 1:
            dev_batches = sharding.of(dev_batches, dev.batch_size, strategy, mean=False)
        try:
            model.fit(
                batches, initial_epoch=first, epochs=last, steps_per_epoch=part_steps,
                validation_data=dev_batches,
                validation_steps=None if dev is None else dev.steps_per_epoch,
                callbacks=hooks, verbose=1 if sys.stdout.isatty() else 2)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                "A batch does not fit the model: class numbers must be from 0 to below "
                "its outputs, and token ids below its vocabulary. Received: "
                f"{_first_words(error)}") from error


def _first_words(error: tf.errors.OpError) -> str:
    """What TensorFlow says of the numbers, without where in the graph it was."""
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    return next((line for line in lines if re.search(r"label|indices|shape", line)),
                lines[0])[:200]
