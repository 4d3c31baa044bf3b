r"""What a teacher costs while training: steps with it over steps without.

    python experiments/benchmarks/distillation_step.py --report=FILE.json

A teacher of the student's size, the same batches and optimizer, a step of each in turn:
its logits in every step, its hidden states too, and its logits from a cache. Cost: ten
minutes for MiniLM on two cores. Expected on a CPU: up to 1.45 times the plain step with
the teacher's logits, since a pass forward is a third of a step; and 1.1 with a cache.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import common
import numpy as np
from absl import flags

from tfopt import compress, model, train
from tfopt.backend import keras
from tfopt.cli import script as shared

FLAGS = flags.FLAGS
PLAIN = "plain"


def contestants(student: keras.Model, class_ids, logits) -> Iterator[tuple]:
    """Names, models to train, and their labels; the student, copied, is the teacher."""
    yield PLAIN, compress.copy_model(student), class_ids
    for name, weights in {"soft_logits": {}, "hidden_states": {"hidden_weight": 1.0},
                          "relations": {"relations_weight": 1.0}}.items():
        context = compress.Context(teacher=student,
                                   distillation=train.Distillation(**weights))
        copy = compress.copy_model(student)
        _, goal = context.training_inputs(copy)
        yield name, goal.prepare(copy), class_ids
    goal = train.Distillation().goal()
    yield ("cached_logits", goal.prepare(compress.copy_model(student)),
           (class_ids, logits))


def main() -> None:
    """Trains in turn and reports."""
    student = model.load(FLAGS.model_dir, num_labels=2)
    inputs, class_ids = common.random_batch(student)

    def train_step(trained, labels, step):
        trained.train_on_batch(inputs, labels)

    running = {}
    for name, trained, labels in contestants(
            student, class_ids, student(inputs).numpy()):
        common.compile_step(trained)
        running[name] = functools.partial(train_step, trained, labels)
    seconds = common.steps_in_turn(running)
    others = [name for name in running if name != PLAIN]
    common.write_report({
        "step_ms": {name: common.spread(times) for name, times in seconds.items()},
        "over_plain": {name: common.over(seconds[name], seconds[PLAIN])
                       for name in others},
        "over_plain_by_round": {
            name: (np.median(seconds[name], axis=1)
                   / np.median(seconds[PLAIN], axis=1)).tolist() for name in others},
    }, batch_size=FLAGS.batch_size, tokens=FLAGS.tokens)


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_measuring()
    common.define_report()
    common.define_steps(50)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
