r"""What quantization costs while training: steps with it over steps without.

    python experiments/benchmarks/quantization_step.py --report=FILE.json

The same model, batches and optimizer, a step of each in turn (`pruning_step.py`); from
the first step on, ranges are watched and numbers rounded. Cost: fifteen minutes for
MiniLM on two cores. Expected: a ratio that grows with how much is rounded, from weights
alone to integers alone. tfmot's own scheme has no figure: its `quantize_model` fails on
a BERT, whose token ids it would round.
"""

from __future__ import annotations

from collections.abc import Iterator

import pruning_step

from tfopt import compress
from tfopt.backend import keras


def quantizations(keras_model: keras.Model) -> Iterator[pruning_step.Contestant]:
    """Plain, and for each export."""
    yield pruning_step.PLAIN, compress.copy_model(keras_model), []
    kind = compress.all_passes()["quantization_aware"]
    for scheme in kind.schemes():
        aware = kind(scheme=scheme)
        yield scheme, aware.wrap(keras_model), aware.callbacks()


if __name__ == "__main__":
    pruning_step.run(quantizations)
