"""One trial of a search: its file, its figures on the held-out part, its early end."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt import model, tasks
from tfopt.measure import cost, runners
from tfopt.metrics import METRICS, Metric
from tfopt.model.anatomy import Anatomy
from tfopt.pipeline import run_dir, timing
from tfopt.pipeline.search_space import SPEED

if TYPE_CHECKING:
    import optuna

    from tfopt.pipeline.job import Job
    from tfopt.pipeline.road import Made, Road, Watch

LATENCY = "latency_p50_ms"
_OF_FILES = (LATENCY, "file_bytes", "gzip_bytes", "parameters", "nonzeros", "bits")
_EPOCHS = "epochs"  # attribute of a trial: the monitor after each of them
_OF_TABLES = "dynamic_wi8_afp32"  # the scheme that latency tables are of
_OTHERS = 4  # no slower, from which on a trial may be stopped


class Behind(Exception):
    """A trial does worse than others had done after as many epochs."""


def metrics() -> list[Metric]:
    """What figures of a file may be a goal."""
    return [METRICS[name] for name in _OF_FILES]


def figures(job: Job, watch: Watch | None = None) -> dict[str, float]:
    """Makes a trial's file and judges it; a killed one goes on.

    Args:
        job: of the trial; a part of train is held out.
        watch: is told of each epoch, and may raise `Behind`.

    Returns:
        The task's figures on the held-out part, and those of the file. Its latency is
        that of the latency table; of what no table knows, timed.

    Raises:
        ValueError: it cannot be made, such as where a target is out of reach.
    """
    road = job.prepared()
    with run_dir.claim(job.out_dir, road.identity) as out:
        made = road.make(out, watch)
        if made is None:
            raise ValueError("A search is of one machine; several workers train one "
                             "trial at a time. Received: TF_CONFIG")
        file = made.files[made.recipe.exports[-1]]
        task, guard = made.dataset.task, made.own.guard
        outputs = runners.open_artifact(
            file, job.measuring.num_threads, guard.encoded.pad_id, known=True).logits(
                guard.encoded.ids, guard.encoded.first_lengths)
        return (task.fitted_quality(outputs, guard.targets) | cost.of_file(file)
                | cost.of_tflite(file) | {LATENCY: _latency(road, made, file)})


def _latency(road: Road, made: Made, file: Path) -> float:
    """The median milliseconds of a request at dev's lengths."""
    costs = road.context.get("costs")
    if made.recipe.exports[-1] == _OF_TABLES and Anatomy.known(made.compressed):
        before, after = map(model.config_of, (made.before, made.compressed))
        if after.hidden_size == before.hidden_size:
            return costs(before).whole(after)
    job = made.job
    return timing.times(
        {"trial": file}, made.own.report["dev"].encoded,
        num_threads=job.measuring.num_threads, smoke=job.measuring.smoke,
        max_tokens=job.exports.export_length or job.data.tokens)["trial"][LATENCY]


def watch(study: optuna.Study, trial: optuna.Trial, task: tasks.Task) -> Watch:
    """What notes the monitor after each epoch, and stops a trial that is behind.

    A trial is behind where its best value yet is worse than the median of those that
    trials no slower (by their target) had after as many epochs: optuna's own pruners
    are for one goal, and another goal, such as time, may excuse a worse value.

    Args:
        study: of the trial.
        trial: goes on with the epochs that are noted, if it was killed.
        task: whose monitor counts.
    """
    name, better = f"val_{task.monitor[0]}", task.monitor[1]
    best = max if better == "higher" else min
    values: list[float] = list(trial.user_attrs.get(_EPOCHS, []))

    def told(epoch: Mapping[str, float]) -> None:
        if name not in epoch:
            return
        values.append(float(epoch[name]))
        trial.set_user_attr(_EPOCHS, values)
        others = _after(study, trial, len(values), best)
        if len(others) < _OTHERS:
            return
        own, median = best(values), statistics.median(others)
        if best(own, median) != own:
            raise Behind(
                f"after {len(values)} epochs {task.monitor[0]} is {own:.4f}, and of "
                f"{len(others)} trials no slower the median was {median:.4f}")

    return told


def _after(study: optuna.Study, trial: optuna.Trial, epochs: int, best
           ) -> Sequence[float]:
    """The best values that finished trials, no slower, had after so many epochs."""
    from optuna.trial import TrialState

    speed = trial.params.get(SPEED, 1.0)
    return [best(other.user_attrs[_EPOCHS][:epochs])
            for other in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if other.params.get(SPEED, 1.0) >= speed
            and len(other.user_attrs.get(_EPOCHS, ())) >= epochs]
