r"""The whole road: fine-tune, compress by a recipe, export, measure, report.

    tfopt compress --model_dir=DIR --train_file=F --dev_file=F --recipe=int8 \
        --out_dir=DIR
    tfopt compress ... --recipe=structured_distilled_quantized --ladder=1,2,3,5
    python experiments/compress.py --model_dir=DIR ...   # the same

Cost: the fine-tuning (unless --baseline_dir names one), the recipe's own training, and
a minute or two of timing. Result: a bundle, model.tflite with its tokenizer and labels,
which `tfopt predict --bundle=DIR` answers by; report.{json,md,png}; structure.png where
heads and neurons are cut; where kernels are stored without their zeros,
exports/saved_model, which TensorFlow runs without tfopt. Without --train_file it runs
on the embedded support intents. With --ladder it makes a bundle for each speedup from
one baseline, and ladder.json; `tfopt serve` answers by the one that its load allows.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from absl import flags

from tfopt import report
from tfopt.cli import flags as shared
from tfopt.pipeline.options import Measuring, Tables, Targets
from tfopt.pipeline.run_options import RunOptions
from tfopt.pipeline.teacher_options import Teacher

if TYPE_CHECKING:
    from tfopt.pipeline.result import Result

FLAGS = flags.FLAGS
flags.disclaim_key_flags()


def main() -> int:
    """Goes the whole road; 2 where a target was not met."""
    from tfopt.pipeline.job import Job  # brings TensorFlow, which --help does without

    result = shared.fine_tuning(Job).run()
    if result is None:
        return 0
    show(result)
    return 0 if result.met else 2


def show(result: Result) -> None:
    """Prints the table, what is where, and which targets were met or missed."""
    from tfopt.pipeline import stages

    print()
    print(report.table(result.rows))
    out = result.out_dir
    for name, what in {
        "model.tflite": f"the model ({result.scheme}), with its tokenizer and labels",
        "report.md": "all figures, with their environment; report.png draws them",
        str(stages.SAVED_MODEL): "the compressed model, for TensorFlow without tfopt",
        "structure.png": "what is left of each layer",
        "baseline": "the fine-tuned Keras model that everything is held against",
    }.items():
        if (out / name).exists():
            print(f"{out / name}: {what}")
    if result.ladder is None:
        print(f'tfopt predict --bundle={out} --text="..." answers by it')
    else:
        for rung in result.ladder.rungs:
            print(f"{result.ladder.path(rung)}: the rung {rung.name}, a bundle; "
                  f"{result.ladder.monitor} {rung.quality:.4f}, p50 "
                  f"{rung.p50_ms:.3g} ms")
        print(f"tfopt serve {out} answers by the rung that its load allows")
    for sentence in result.reached:
        print(sentence)
    for sentence in result.missed:
        print(sentence, file=sys.stderr)


def define_flags() -> None:
    """Defines the flags of this command."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    for record in (Teacher, Targets, Tables, Measuring):
        shared.define(record)
    shared.define_exporting()
    shared.define(RunOptions)
