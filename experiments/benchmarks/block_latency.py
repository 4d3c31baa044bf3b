r"""How long a block takes by its size: which sizes the runtime's kernels like.

    python experiments/benchmarks/block_latency.py --shape=minilm_l6 --report=FILE.json

Every number of heads, and numbers of neurons in steps of 16 around a few places, each
in a file of its own, in turn. Cost: five minutes for MiniLM. Expected: steps, not a
line: sizes within a step cost the same, so that a pruned model may as well keep the
largest of them.
"""

from __future__ import annotations

import common
from absl import flags

from tfopt import model
from tfopt.cli import script as shared
from tfopt.measure import block_benchmark
from tfopt.measure.block_benchmark import Sizes

FLAGS = flags.FLAGS


def main() -> None:
    """Times the blocks in turn, and reports."""
    config = model.named(FLAGS.shape)
    if not all(0 < place <= max(config.intermediate_sizes) for place in FLAGS.places):
        raise ValueError("--places must be 1 to the model's "
                         f"{max(config.intermediate_sizes)} neurons. "
                         f"Received: {FLAGS.places}")
    around = range(-FLAGS.steps * FLAGS.step, FLAGS.steps * FLAGS.step + 1, FLAGS.step)
    sizes = {"heads": list(range(1, max(config.num_heads) + 1)),
             "neurons": sorted({place + off for place in FLAGS.places for off in around
                                if place + off > 0})}
    plan = {(kind, size): Sizes.of_block(kind, "inner", size)
            for kind in sizes for size in sizes[kind]}
    ms = block_benchmark.measure(
        config, {"empty": Sizes.empty(block_benchmark.REPEATS + 1), **plan},
        tokens=FLAGS.tokens, num_threads=FLAGS.num_threads, scheme=FLAGS.scheme,
        rounds=2 if FLAGS.smoke else FLAGS.rounds).ms
    block_us = {key: 1e3 * (ms[key] - ms["empty"]) / block_benchmark.REPEATS
                for key in plan}
    common.write_report(
        {f"{kind}_us": {str(size): {f"t{count}": float(us) for count, us in zip(
            FLAGS.tokens, block_us[kind, size], strict=True)}
            for size in sizes[kind]} for kind in sizes},
        num_threads=FLAGS.num_threads, scheme=FLAGS.scheme, shape=FLAGS.shape)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_enum("shape", "minilm_l6", model.SHAPE_NAMES, "The model.")
    flags.DEFINE_string("scheme", "dynamic_wi8_afp32", "The export.")
    flags.DEFINE_multi_integer("tokens", [8, 24, 32, 64], "A token count; may be given "
                               "several times.")
    flags.DEFINE_multi_integer("places", [128, 512, 1024], "Neurons around which there "
                               "are more; may be given several times.")
    flags.DEFINE_integer("steps", 5, "Sizes below and above a place.", lower_bound=0)
    flags.DEFINE_integer("step", 16, "Neurons between two sizes.", lower_bound=1)
    flags.DEFINE_integer("rounds", 60, "Turns of each size.", lower_bound=1)
    shared.run(main)
