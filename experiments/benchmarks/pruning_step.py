r"""What pruning costs while training: steps with it over steps without.

    python experiments/benchmarks/pruning_step.py --report=FILE.json

The same model, batches and optimizer, in turns of 100 steps, within which masks are
chosen once. Cost: twenty minutes for MiniLM on two cores. Expected: a ratio below 1.1
for each score; tfmot's own wrapper sorts whole kernels and takes longer.
"""

from __future__ import annotations

import time

import common
import flags as shared
import numpy as np
from absl import flags, logging

from tfopt import compress, model, train
from tfopt.backend import keras, tf, tfmot
from tfopt.model import anatomy

FLAGS = flags.FLAGS
PLAIN, TFMOT = "plain", "tfmot_magnitude"
SCORES = ("magnitude", "movement", "taylor", "fisher")
_TURN = 100  # steps; masks are chosen once in each
_RAMP = 1_000_000  # longer than any run, so that masks are chosen all the time


def contestants(keras_model):
    """Name -> (a model to train, its callbacks)."""
    yield PLAIN, compress.copy_model(keras_model), []
    for score in SCORES:
        pruning = compress.from_fields({
            "pass": score, "final_sparsity": 0.9, "initial_sparsity": 0.5,
            "begin_step": 1, "end_step": _RAMP, "frequency": _TURN})
        yield score, pruning.wrap(keras_model), pruning.callbacks()
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.9, 1, _RAMP,
                                                    frequency=_TURN)
    wrap = {layer.name for layer in anatomy.encoder_dense(keras_model)}
    yield TFMOT, keras.models.clone_model(
        compress.copy_model(keras_model),
        clone_function=lambda layer: tfmot.sparsity.keras.prune_low_magnitude(
            layer, schedule) if layer.name in wrap else layer), [
                tfmot.sparsity.keras.UpdatePruningStep()]


def main() -> None:
    """Trains in turn and reports."""
    keras_model = model.load(FLAGS.model_dir, num_labels=2)
    random = np.random.default_rng(0)
    shape = [FLAGS.batch_size, FLAGS.tokens]
    vocabulary = model.config_of(keras_model).vocab_size
    inputs = {"input_ids": random.integers(vocabulary, size=shape).astype(np.int32),
              "attention_mask": np.ones(shape, np.int32),
              "token_type_ids": np.zeros(shape, np.int32)}
    batches = tf.data.Dataset.from_tensors(
        (inputs, random.integers(2, size=FLAGS.batch_size))).repeat()
    steps, rounds = (4, 2) if FLAGS.smoke else (_TURN, FLAGS.rounds)
    running, seconds = {}, {}
    for name, trained, callbacks in contestants(keras_model):
        trained.compile(train.AdamW(1e-5), keras.losses.SparseCategoricalCrossentropy(
            from_logits=True))
        running[name] = trained, callbacks
        trained.fit(batches, steps_per_epoch=2, verbose=0, callbacks=callbacks)
    for number in range(rounds):
        for name, (trained, callbacks) in running.items():
            start = time.perf_counter()
            trained.fit(batches, steps_per_epoch=steps, verbose=0, callbacks=callbacks)
            seconds.setdefault(name, []).append((time.perf_counter() - start) / steps)
        logging.info("Round %d of %d: %s", number + 1, rounds, {
            name: round(times[-1], 4) for name, times in seconds.items()})
    plain = np.array(seconds[PLAIN])
    common.write_report({
        "step_ms": {name: 1e3 * float(np.median(times))
                    for name, times in seconds.items()},
        "over_plain": {name: float(np.median(np.array(times) / plain))
                       for name, times in seconds.items() if name != PLAIN},
        "over_plain_by_round": {name: (np.array(times) / plain).tolist()
                                for name, times in seconds.items() if name != PLAIN},
    }, batch_size=FLAGS.batch_size, tokens=FLAGS.tokens)


if __name__ == "__main__":
    shared.define_model()
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_integer("batch_size", 32, "Examples a step.", lower_bound=1)
    flags.DEFINE_integer("tokens", 16, "Length of the texts.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Turns of each.", lower_bound=1)
    shared.run(main)
