r"""Examples/s of training: plain, pruning, distilling and quantization-aware steps.

    python experiments/benchmarks/training.py --model_dir=random:bert_base \
        --max_length=128 --batch_size=64 --report=FILE.json

Random texts, all of one length, through `train.fit` as the scripts use it: input
pipeline, callbacks and all. On one device the plain steps are held against a bare loop
over the same step, call by call in turn. A teacher is of the student's size. Cost: a
minute a kind on a GPU, most of it XLA's; three minutes a kind for MiniLM on two cores.
Expected: on two cores 0.97 of a bare loop; on one H100 in bfloat16, BERT-Base, 5100
examples/s at batch 256, 4400 at 64, and pruning 0.95 of that. Of several workers the
first alone writes.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
from pathlib import Path

import common
import numpy as np
from absl import flags, logging

from tfopt import compress, data, model, train
from tfopt.backend import keras, tf
from tfopt.cli import script as shared

FLAGS = flags.FLAGS
KINDS = ("plain", "pruning", "distilling", "quantizing")


class Clock(keras.callbacks.Callback):
    """Notes when each call of the training function ended, and behind which step."""

    def __init__(self):
        super().__init__()
        self.ends: list[tuple[int, float]] = []

    def on_train_batch_end(self, batch, logs=None):
        """Notes; the loss is on the host already, so that the step is done."""
        self.ends.append((train.callbacks.steps_done(self.model), time.perf_counter()))

    def seconds(self, from_step: int) -> list[float]:
        """Of each step behind one; those of a call share its time equally."""
        return [(end - start) / (after - before)
                for (before, start), (after, end) in zip(
                    self.ends, self.ends[1:], strict=False) if before >= from_step
                for _ in range(after - before)]


class Turn(keras.callbacks.Callback):
    """Behind the first steps, waits for its turn among processes side by side.

    XLA compiles for minutes, on the processor: so they compile at once, and are timed
    one after the other, when all have compiled.
    """

    _file = None

    def on_train_batch_end(self, batch, logs=None):
        """Waits, once; `Clock` must come behind it."""
        done = train.callbacks.steps_done(self.model)
        if self._file is not None or not FLAGS.turn_file or done < FLAGS.warm_up_steps:
            return
        self._file = open(FLAGS.turn_file, "a+", encoding="utf-8")
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()
        while len(Path(FLAGS.turn_file).read_text("utf-8").splitlines()) < FLAGS.turns:
            time.sleep(0.1)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def on_train_end(self, logs=None):
        """Lets the next one."""
        if self._file is not None:
            self._file.close()


def texts(vocab_size: int, count: int, batch_size: int) -> data.Batches:
    """Random texts of --max_length tokens, of two classes."""
    random = np.random.default_rng(0)
    ids = random.integers(vocab_size, size=[count, FLAGS.max_length]).tolist()
    return data.Batches(
        data.Encoded(ids=ids, first_lengths=[FLAGS.max_length] * count),
        random.integers(2, size=count), batch_size=batch_size, shuffle_seed=0,
        pad_to=FLAGS.max_length, drop_remainder=True)


def trained(kind: str, keras_model: keras.Model, steps: int) -> tuple:
    """The model to fit, its callbacks and its goal."""
    if kind == "pruning":
        pruning = compress.all_passes()["magnitude"](
            final_sparsity=0.8, initial_sparsity=0.4, begin_step=1, end_step=steps,
            frequency=FLAGS.mask_frequency)
        return pruning.wrap(keras_model), pruning.callbacks(), None
    if kind == "quantizing":
        aware = compress.all_passes()["quantization_aware"](scheme=FLAGS.scheme)
        return aware.wrap(keras_model), aware.callbacks(), None
    goal = None
    if kind == "distilling":
        goal = train.Distillation().goal(model.for_inference(keras_model))
    return compress.copy_model(keras_model), [], goal


def measure(kind: str, keras_model: keras.Model, batches: data.Batches,
            settings: train.Settings, strategy) -> dict:
    """Examples/s of one kind of step, the first calls left out."""
    steps = batches.steps_per_epoch
    with strategy.scope():
        learner, callbacks, goal = trained(kind, keras_model, steps)
    clock, start = Clock(), time.perf_counter()
    history = train.fit(learner, batches, settings=settings, goal=goal,
                        callbacks=[*callbacks, Turn(), clock])
    seconds = np.array(clock.seconds(FLAGS.warm_up_steps))
    return {"examples_per_s": batches.batch_size / float(np.mean(seconds)),
            # Without the calls at whose end masks are chosen, say.
            "examples_per_s_median": batches.batch_size / float(np.median(seconds)),
            "steps_timed": len(seconds),
            "until_first_call_s": clock.ends[0][1] - start,
            "loss": history[-1]["loss"]}


class Beside(keras.callbacks.Callback):
    """Between two calls of the training function, makes as many steps of a bare loop.

    Machines drift within seconds: so they take turns, call by call.

    Args:
        several: makes so many steps.
    """

    def __init__(self, several):
        super().__init__()
        self._several = several
        self._start, self._done = None, 0
        self.seconds: dict[str, list[float]] = {"fit": [], "bare": []}

    def on_train_batch_end(self, batch, logs=None):
        """Ends a call's time, makes the bare steps, and begins the next one's."""
        end, done = time.perf_counter(), train.callbacks.steps_done(self.model)
        count = done - self._done
        start = time.perf_counter()
        self._several(tf.constant(count)).numpy()
        bare_s = time.perf_counter() - start
        if self._done >= FLAGS.warm_up_steps:
            self.seconds["fit"].append((end - self._start) / count)
            self.seconds["bare"].append(bare_s / count)
        self._start, self._done = time.perf_counter(), done


def bare_loop(keras_model: keras.Model, batches: data.Batches,
              settings: train.Settings):
    """What makes so many plain steps: a `tf.function` without Keras around it."""
    copy = compress.copy_model(keras_model)
    if settings.mixed_precision != "float32":
        copy = train.retype(copy, settings.mixed_precision)
    optimizer = train.AdamW(
        train.WarmupLinearDecay(settings.learning_rate, 0, batches.steps_per_epoch),
        global_clipnorm=settings.clip_norm, dense=settings.jit_compile or None)
    optimizer.build(copy.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile=settings.jit_compile)
    def step(inputs, class_ids):
        with tf.GradientTape() as tape:
            loss = loss_of(class_ids, copy(inputs, training=True))
        optimizer.minimize(loss, copy.trainable_variables, tape=tape)
        return loss

    iterator = iter(batches.dataset(epochs=2))  # one step more than `fit` makes

    @tf.function
    def several(count):
        loss = 0.0
        for _ in tf.range(count):
            loss = step(*next(iterator))
        return loss

    with train.lean_step(copy, settings.jit_compile):  # as in `fit`
        several(tf.constant(1))
    return several


def fit_over_bare(keras_model: keras.Model, batches: data.Batches,
                  settings: train.Settings) -> float:
    """Examples/s of plain steps through `train.fit` over those of a bare loop."""
    beside = Beside(bare_loop(keras_model, batches, settings.on_this_machine()))
    train.fit(compress.copy_model(keras_model), batches, settings=settings,
              callbacks=[beside])
    fit, bare = (np.array(beside.seconds[name]) for name in ("fit", "bare"))
    return float(np.median(bare / fit))


def main() -> None:
    """Measures each kind and reports."""
    placed = shared.placement()
    batch_size = placed.batch_size(FLAGS.batch_size)
    settings = train.Settings(
        epochs=1, learning_rate=1e-5, mixed_precision=FLAGS.mixed_precision,
        jit_compile=FLAGS.jit_compile, steps_per_execution=FLAGS.steps_per_execution)
    with placed.strategy.scope():
        keras_model = model.load(FLAGS.model_dir, num_labels=2)
    steps = 6 if FLAGS.smoke else FLAGS.steps
    if steps <= FLAGS.warm_up_steps:
        raise ValueError("--steps must be above --warm_up_steps. Received: "
                         f"--steps={steps}, --warm_up_steps={FLAGS.warm_up_steps}")
    if FLAGS.turn_file and (len(FLAGS.kinds) > 1 or FLAGS.rounds > 1):
        raise ValueError("--turn_file wants one kind and one round. Received: --kinds="
                         f"{','.join(FLAGS.kinds)}, --rounds={FLAGS.rounds}")
    batches = texts(model.config_of(keras_model).vocab_size, steps * batch_size,
                    batch_size)
    figures: dict = {kind: [] for kind in FLAGS.kinds}
    over_bare: list[float] = []
    for number in range(FLAGS.rounds):
        for kind in FLAGS.kinds:
            found = measure(kind, keras_model, batches, settings, placed.strategy)
            logging.info("Round %d, %s: %.0f examples/s", number + 1, kind,
                         found["examples_per_s"])
            figures[kind].append(found)
        if FLAGS.bare and placed.replicas == 1:
            over_bare.append(fit_over_bare(keras_model, batches, settings))
            logging.info("Round %d: %.3f of a bare loop", number + 1, over_bare[-1])
    if not placed.is_chief:
        return
    best = {kind: float(np.median([one["examples_per_s"] for one in found]))
            for kind, found in figures.items()}
    plain = figures.get("plain")
    ratios = {} if plain is None else {
        kind: float(np.median([one["examples_per_s"] / beside["examples_per_s"]
                               for one, beside in zip(found, plain, strict=True)]))
        for kind, found in figures.items() if kind != "plain"}
    gpus = tf.config.list_physical_devices("GPU")
    common.write_report(
        {"examples_per_s": best, "over_plain": ratios, "rounds": figures,
         "plain_over_bare_loop": float(np.median(over_bare)) if over_bare else None,
         "plain_over_bare_loop_by_round": over_bare},
        strategy=placed.name, replicas=placed.replicas, batch_size=batch_size,
        tokens=FLAGS.max_length, **{
            field: value for field, value in dataclasses.asdict(
                settings.on_this_machine()).items() if field in (
                "jit_compile", "mixed_precision", "steps_per_execution")},
        gpus=[tf.config.experimental.get_device_details(gpu).get("device_name")
              for gpu in gpus])


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_devices()
    common.define_report()
    flags.DEFINE_multi_enum("kinds", list(KINDS), KINDS, "Steps to time; may be given "
                            "several times.")
    flags.DEFINE_integer("max_length", 128, "Tokens of every text.", lower_bound=2)
    flags.DEFINE_integer("batch_size", 64, "Examples a step, of all replicas, or of "
                         "each with --batch_per_replica.", lower_bound=1)
    flags.DEFINE_integer("steps", 200, "Steps of a kind in a round.", lower_bound=2)
    flags.DEFINE_integer("warm_up_steps", 40, "Of these, first ones that do not count.",
                         lower_bound=1)
    flags.DEFINE_integer("rounds", 1, "Times each kind is measured, in turn.",
                         lower_bound=1)
    flags.DEFINE_integer("mask_frequency", 100, "Steps between two choices of masks.",
                         lower_bound=1)
    flags.DEFINE_string("scheme", "dynamic_wi8_afp32", "Export that quantizing trains "
                        "for.")
    flags.DEFINE_bool("bare", True, "On one device, hold plain steps against a bare "
                      "loop.")
    flags.DEFINE_string("turn_file", None, "A file, missing at first, by which several "
                        "of these scripts, each of one kind, take turns: all compile "
                        "side by side, then each is timed alone.")
    flags.DEFINE_integer("turns", 1, "How many of them there are.", lower_bound=1)
    flags.DEFINE_bool("smoke", False, "Six steps only: shows that everything runs.")


if __name__ == "__main__":
    define_flags()
    shared.run(main)
