"""A search for the best of many goals: recipes and their numbers, tried and compared.

    found = tfopt.Search(job=tfopt.Job(train="train.tsv", dev="dev.tsv",
                                       out_dir="runs/search"), trials=12).run()
    found.ladder                       # bundles that no other trial beats in all goals

Trials are chosen by optuna: multivariate tree-structured Parzen estimators (Bergstra et
al. 2011; of several goals Ozaki et al. 2022, doi:10.1613/jair.1.13188) or NSGA-II (Deb
et al. 2002, doi:10.1109/4235.996017). They share one baseline and one latency table,
and are judged on a part held out of train; dev judges what is left at the end.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from tfopt import model, tasks
from tfopt.metrics import Metric
from tfopt.pipeline import laddering, reference, run_dir, search_report, search_trial
from tfopt.pipeline.identity import digest
from tfopt.pipeline.job import Job
from tfopt.pipeline.result import Result
from tfopt.pipeline.road import Road
from tfopt.pipeline.search_journal import (
    LOCKS,
    TWIN,
    alone,
    directory_of,
    imported,
    next_trial,
    opened,
)
from tfopt.pipeline.search_options import SearchOptions
from tfopt.pipeline.search_space import Space, applied, in_words

if TYPE_CHECKING:
    import optuna

_HELD_OUT = 0.1  # of train, where nothing else is said


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(SearchOptions):
    """A search.

    Attributes:
        job: what all trials have in common; its recipe and targets are not looked at.
        goals, space, trials, minutes, sampler: as of `SearchOptions`.
    """

    job: Job

    def run(self) -> Result | None:
        """Tries, or goes on trying, and makes a ladder of what no other trial beats.

        Returns:
            What is in the job's `out_dir`; None where other processes still try.

        Raises:
            ValueError: a goal, the space or an option of the job is wrong, optuna is
                not installed, or the directory holds another search.
        """
        module = imported()
        job = _prepared(self.job)
        space = Space.default(job) if self.space is None else Space.load(self.space)
        road = job.prepared()
        goals = goals_of(self.goals, road.dataset.task)
        identity = road.identity | {"run": "search", "space": space.to_json(),
                                    "goals": [goal.name for goal in goals]}
        out = Path(job.out_dir)
        with alone(out), run_dir.claim(out, identity):
            baseline = road.baseline(out, identity)
            if search_trial.LATENCY in identity["goals"]:
                start = model.config_of(model.load(baseline))
                road.context.get("costs")(start)  # the tables are timed once
            study = opened(
                out, digest(identity), ["maximize" if goal.better == "higher"
                                        else "minimize" for goal in goals],
                self.sampler, self.job.settings.seed)
            if not study.get_trials(deepcopy=False):
                for params in space.known(job)[:self.trials]:
                    study.enqueue_trial(params, skip_if_exists=True)
        job = dataclasses.replace(job, baseline=baseline)
        begun, sampler = time.monotonic(), study.sampler
        by_chance = module.samplers.RandomSampler(seed=self.job.settings.seed)
        while self.minutes is None or time.monotonic() - begun < 60 * self.minutes:
            with next_trial(study, out, self.trials) as trial:
                if trial is None:
                    break
                new = self._try(study, trial, space, goals, job, road.dataset.task)
            # Estimators may be so sure of a trial that they choose it again and again.
            study.sampler = sampler if new else by_chance
        with alone(out), run_dir.claim(out, identity):
            return _ended(study, goals, job, road, out, baseline)

    def _try(self, study: optuna.Study, trial: optuna.Trial, space: Space,
             goals: list[Metric], job: Job, task: tasks.Task) -> bool:
        """Tries one; what cannot be made is noted with its reason.

        Returns:
            Whether it is not one once more that was tried before.
        """
        from optuna.trial import TrialState

        params, name = space.suggest(trial), directory_of(trial.number)
        twin = next((other.number for other in study.get_trials(deepcopy=False)
                     if other.state.is_finished() and other.params == trial.params),
                    None)
        if twin is not None:
            trial.set_user_attr(TWIN, twin)
            trial.set_user_attr("why", f"it is {directory_of(twin)} once more")
            study.tell(trial, state=TrialState.FAIL)
            return False
        logging.info("%s of %d: %s", name, self.trials, in_words(params))
        own = dataclasses.replace(applied(job, params),
                                  out_dir=Path(job.out_dir) / name)
        try:
            figures = search_trial.figures(
                own, search_trial.watch(study, trial, task))
        except search_trial.Behind as error:
            trial.set_user_attr("why", str(error))
            study.tell(trial, state=TrialState.PRUNED)
            logging.info("%s was stopped: %s", name, error)
            shutil.rmtree(own.out_dir, ignore_errors=True)
            return True
        except ValueError as error:
            trial.set_user_attr("why", str(error))
            study.tell(trial, state=TrialState.FAIL)
            logging.warning("%s cannot be made: %s", name, error)
            return True
        trial.set_user_attr("figures", figures)
        study.tell(trial, [figures[goal.name] for goal in goals])
        front = {each.number for each in study.best_trials}
        logging.info("%s: %s%s", name, ", ".join(
            f"{goal.name} {figures[goal.name]:.5g}" for goal in goals),
            "; no other beats it" if trial.number in front else "")
        _tidy(study, Path(job.out_dir))
        return True


def goals_of(names: tuple[str, ...], task: tasks.Task) -> list[Metric]:
    """The metrics that are searched for.

    Args:
        names: of metrics; none for the task's own, time and size.
        task: what is learned.

    Raises:
        ValueError: one is no metric of a trial, or has no direction, or stands twice.
    """
    known = {metric.name: metric for metric in (*task.metrics, *search_trial.metrics())
             if metric.better}
    names = names or (task.monitor[0], search_trial.LATENCY, "file_bytes")
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise ValueError(f"--goals must be of {', '.join(known)}, each once. Received: "
                         f"--goals={','.join(names)}")
    return [known[name] for name in names]


def _prepared(job: Job) -> Job:
    """The job as its trials have it: a part of train judges them."""
    if job.ladder:
        raise ValueError("A search makes a ladder of what it finds. Received: "
                         f"--ladder={','.join(map(str, job.ladder))}")
    held_out = job.data.holdout_fraction or _HELD_OUT
    return dataclasses.replace(job, data=dataclasses.replace(
        job.data, holdout_fraction=held_out))


def _tidy(study: optuna.Study, out: Path) -> None:
    """Removes what trials have left that another one beats in every goal."""
    front = {trial.number for trial in study.best_trials}
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and trial.number not in front:
            shutil.rmtree(out / directory_of(trial.number), ignore_errors=True)


def front_of(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that no other beats in all goals, in their order.

    Raises:
        ValueError: none could be made.
    """
    from optuna.trial import TrialState

    front = sorted(study.best_trials, key=lambda trial: trial.number)
    if not front:
        failed = study.get_trials(deepcopy=False, states=[TrialState.FAIL])
        raise ValueError("A search must have a trial that can be made. Received: " + (
            failed[-1].user_attrs["why"] if failed else "no trial within --minutes"))
    return front


def _ended(study: optuna.Study, goals: list[Metric], job: Job, road: Road,
           out: Path, baseline: Path) -> Result | None:
    """Finishes the bundles of the front, times them alone, in turn, and reports."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        logging.info("Other processes still try; the last of them ends the search")
        return None
    said, results = {}, []
    for trial in front_of(study):
        name = directory_of(trial.number)
        own = dataclasses.replace(applied(job, trial.params), out_dir=out / name)
        result = own.run()
        assert result is not None
        results.append(result)
        said[name] = {"missed": result.missed, "reached": result.reached}
    road = dataclasses.replace(road, teacher=None,
                               dataset=reference.completed(road.dataset, baseline))
    notes = search_report.write(study, goals, out)
    for lock in out.glob(f"{LOCKS}*"):
        lock.unlink()
    return laddering.put_together(job, road, out, said, results[-1].scheme, notes)


