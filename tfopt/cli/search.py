r"""Search for the best of many goals: recipes and their numbers, tried and compared.

    tfopt search --train_file=F --dev_file=F --trials=12 --out_dir=runs/search
    tfopt search ... --goals=accuracy,latency_p50_ms --space=space.json --minutes=60

Cost: a compression for each trial, from one baseline and one latency table; a killed
search goes on with the same command, and the same command started twice shares the
work. Result: ladder.json and a bundle for each trial that no other beats in all goals,
which `tfopt serve` answers by; search.{md,json,png} with all trials. Trials are judged
on a part held out of train; dev judges what is left at the end. Needs tfopt[search].
"""

from __future__ import annotations

from tfopt.cli import compress
from tfopt.cli import flags as shared
from tfopt.pipeline.options import Measuring, Tables, Targets
from tfopt.pipeline.run_options import RunOptions
from tfopt.pipeline.search_options import SearchOptions
from tfopt.pipeline.teacher_options import Teacher


def main() -> int:
    """Searches, and shows what was found."""
    from tfopt.pipeline.job import Job  # brings TensorFlow, which --help does without
    from tfopt.pipeline.searching import Search

    result = shared.read(Search, job=shared.fine_tuning(Job)).run()
    if result is not None:
        compress.show(result)
    return 0


def define_flags() -> None:
    """Defines the flags of this command."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    for record in (Teacher, Tables, Measuring, SearchOptions):
        shared.define(record)
    shared.define(Targets, only=("max_accuracy_drop",))
    shared.define_exporting()
    shared.define(RunOptions, only=("out_dir", "baseline", "cascade_max_drop"))
