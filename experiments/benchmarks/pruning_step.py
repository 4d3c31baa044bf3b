r"""What pruning costs while training: steps with it over steps without.

    python experiments/benchmarks/pruning_step.py --report=FILE.json

The same model, batches and optimizer, a step of each in turn, and masks chosen once in
a round of 100 steps. Cost: fifteen minutes for MiniLM on two cores. Expected: a ratio
below 1.1 for each score; tfmot's own wrapper sorts whole kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import common
import numpy as np
from absl import flags

from tfopt import compress, model
from tfopt.backend import keras, tfmot
from tfopt.cli import script as shared
from tfopt.model.anatomy import Anatomy

FLAGS = flags.FLAGS
PLAIN, TFMOT = "plain", "tfmot_magnitude"
SCORES = ("magnitude", "movement", "taylor", "fisher")
_ROUND = 100  # steps; masks are chosen once in each
_RAMP = 1_000_000  # longer than any run, so that masks are chosen all the time

# Its name, a model to train, and the callbacks of that.
Contestant = tuple[str, keras.Model, Sequence[keras.callbacks.Callback]]


def prunings(keras_model: keras.Model) -> Iterator[Contestant]:
    """Plain, by each score, and by tfmot's own wrapper."""
    yield PLAIN, compress.copy_model(keras_model), []
    for score in SCORES:
        pruning = compress.from_fields({
            "pass": score, "final_sparsity": 0.9, "initial_sparsity": 0.5,
            "begin_step": 1, "end_step": _RAMP, "frequency": _ROUND})
        yield score, pruning.wrap(keras_model), pruning.callbacks()
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.9, 1, _RAMP,
                                                    frequency=_ROUND)
    wrap = {layer.name for layer in Anatomy.of(keras_model).dense}
    yield TFMOT, keras.models.clone_model(
        compress.copy_model(keras_model),
        clone_function=lambda layer: tfmot.sparsity.keras.prune_low_magnitude(
            layer, schedule) if layer.name in wrap else layer), [
                tfmot.sparsity.keras.UpdatePruningStep()]


def compare(contestants: Callable[[keras.Model], Iterable[Contestant]]) -> None:
    """Trains contestants in turn and reports.

    Args:
        contestants: model -> what to train, `PLAIN` among them.
    """
    keras_model = model.load(FLAGS.model_dir, num_labels=2)
    inputs, class_ids = common.random_batch(keras_model)

    def train_step(trained, hooks, step):
        hooks.on_train_batch_begin(step)
        trained.train_on_batch(inputs, class_ids)
        hooks.on_train_batch_end(step)

    running = {}
    for name, trained, callbacks in contestants(keras_model):
        common.compile_step(trained)
        hooks = keras.callbacks.CallbackList(callbacks, model=trained)
        hooks.on_train_begin()
        running[name] = functools.partial(train_step, trained, hooks)
    seconds = common.steps_in_turn(running)
    common.write_report({
        "step_ms": {name: 1e3 * float(np.median(times))
                    for name, times in seconds.items()},
        "slowest_step_ms": {name: 1e3 * float(np.median(times.max(axis=1)))
                            for name, times in seconds.items()},
        "over_plain": {name: float(np.median(ratios(times, seconds[PLAIN])))
                       for name, times in seconds.items() if name != PLAIN},
        "over_plain_by_round": {name: ratios(times, seconds[PLAIN]).tolist()
                                for name, times in seconds.items() if name != PLAIN},
    }, batch_size=FLAGS.batch_size, tokens=FLAGS.tokens)


def ratios(times, plain):
    """Of each round [rounds], from the seconds of its steps [rounds, steps]."""
    return times.sum(axis=1) / plain.sum(axis=1)


def run(contestants: Callable[[keras.Model], Iterable[Contestant]]) -> None:
    """Defines and parses the flags, and compares."""
    shared.define_model()
    shared.define_measuring()
    common.define_report()
    common.define_steps(_ROUND, "Steps of a round, in each of 100 of which masks are "
                        "chosen once.")
    shared.run(lambda: compare(contestants))


if __name__ == "__main__":
    run(prunings)
