"""A job that makes several bundles: one baseline, one teacher, one latency table.

Each rung is a job of its own from the same baseline, in a directory of its own. When
all are there they are judged on dev and timed in turn, those that another one beats in
both are left out, and a cascade of the others is chosen (`serve.cascade`). A killed run
goes on at the rung that it was at.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from tfopt import compress, report
from tfopt.files import read_json, to_json, write_whole
from tfopt.measure import cost, runners
from tfopt.pipeline import publishing, recipes, reference, run_dir, stages, timing
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.measuring import Measured
from tfopt.pipeline.result import Result
from tfopt.pipeline.teacher_options import Teacher
from tfopt.serve import cascade, manifest
from tfopt.serve.ladder import Ladder
from tfopt.serve.rungs import LeftOut, Rung, sorted_out
from tfopt.tasks import Task, named
from tfopt.train.distribute import cluster

if TYPE_CHECKING:
    from tfopt.pipeline.job import Job, Road

_WHOLE = 1.0  # the speed of a rung that no structure is cut out of
_TARGET = "target_speedup"


def run(job: Job) -> Result | None:
    """Makes the rungs that are not there yet, and the ladder of all.

    Args:
        job: with a `ladder`.

    Returns:
        What is in its directory.

    Raises:
        ValueError: as `Job.run`; or another target of speed, or several workers, are
            given beside a ladder.
    """
    recipe = recipes.load(job.recipe)
    jobs = _jobs(job, recipe)
    road = jobs[-1].prepared()  # of the fastest, whose recipe has every pass
    road = dataclasses.replace(road, teacher=None)  # each rung reads it again
    identity = road.identity | {
        "run": "ladder", "ladder": [f"{speed:g}" for speed in job.speeds],
        "cascade_max_drop": job.cascade_max_drop, _TARGET: None,
        "recipe": json.loads(recipe.to_json())}
    with run_dir.claim(job.out_dir, identity) as out:
        baseline = road.baseline(out, identity)
        road = dataclasses.replace(
            road, dataset=reference.completed(road.dataset, baseline))
        said = _climb(jobs, baseline, out)
        return put_together(job, road, out, said, recipe.exports[-1])


def _jobs(job: Job, recipe: compress.Recipe) -> list[Job]:
    """A job for each rung, in the order of their speeds."""
    given = {name: value for name in (_TARGET, "target_latency_ms")
             if (value := getattr(job.targets, name)) is not None}
    if given:
        raise ValueError("--ladder names the targets of speed itself. Received: "
                         f"--ladder={','.join(map(str, job.ladder))}, {given}")
    if cluster.read() is not None:
        raise ValueError("--ladder is of one machine: with several workers, compress "
                         "rung by rung, with --target_speedup. Received: TF_CONFIG")
    passes = tuple(step for step in recipe.passes if _TARGET not in step.overrides)
    uncut = dataclasses.replace(recipe, passes=passes) if passes else (
        compress.Recipe(passes=(compress.from_fields({"pass": "none"}),),
                        exports=recipe.exports))
    if job.teacher.cache_teacher_logits:  # once for all rungs
        place = job.teacher.logits_dir or Path(job.out_dir) / run_dir.STATE / "logits"
        job = dataclasses.replace(job, teacher=dataclasses.replace(
            job.teacher, logits_dir=place))
    found, retime = [], job.tables.retime
    for speed in job.speeds:
        own = dataclasses.replace(job, ladder=(),
                                  out_dir=Path(job.out_dir) / f"{speed:g}x")
        if speed == _WHOLE:
            found.append(dataclasses.replace(
                own, recipe=uncut, teacher=job.teacher if passes else Teacher(),
                tables=dataclasses.replace(job.tables, retime=False)))
            continue
        found.append(dataclasses.replace(
            own, recipe=recipe,
            targets=dataclasses.replace(job.targets, target_speedup=speed),
            tables=dataclasses.replace(job.tables, retime=retime)))
        retime = False  # what one rung has timed anew is new to the others
    return found


def _climb(jobs: Sequence[Job], baseline: Path, out: Path) -> dict[str, dict]:
    """Runs each job that has not come to its end; what all say of their targets."""
    found = {}
    for job in jobs:
        place = Path(job.out_dir)
        done = out / run_dir.STATE / f"{place.name}.json"
        if not done.is_file():
            logging.info("Rung %s", place.name)
            result = dataclasses.replace(job, baseline=baseline).run()
            write_whole(done, to_json({"missed": result.missed,
                                       "reached": result.reached}
                                      if result else {"missed": [], "reached": []}))
        found[place.name] = read_json(done)
    return found


def put_together(job: Job, road: Road, out: Path,
                 said: Mapping[str, Mapping[str, list[str]]], scheme: str,
                 notes: Sequence[str] = ()) -> Result:
    """Judges, times and sorts the rungs, and writes ladder and report.

    Args:
        job: whose rungs they are.
        road: read for the baseline of all.
        out: directory of all, which is claimed.
        said: name of a rung, a bundle right below `out` -> "missed" and "reached",
            what its own job said of its targets.
        scheme: of the rungs, for the result.
        notes: what a reader of the report must know beside.
    """
    task = road.dataset.task
    measured = _measured(job, road, out, list(said))
    quality, p50 = ({row.artifact: row.value for row in measured.rows
                     if row.metric == metric and row.split in ("", "dev")}
                    for metric in (task.monitor[0], "latency_p50_ms"))
    rungs, left = sorted_out([
        Rung(name=name, directory=name, quality=quality[name], p50_ms=p50[name])
        for name in said], task.monitor[1])
    found = cascade.cheapest(
        task, rungs, {rung.name: measured.outputs[rung.name]["dev"] for rung in rungs},
        road.dataset.report["dev"].targets, job.cascade_max_drop, job.settings.seed)
    ladder = Ladder(place=out, rungs=rungs, monitor=task.monitor[0],
                    better=task.monitor[1], left_out=left, cascade=found)
    notes = [*notes, *road.dataset.notes, *_on(left, task),
             _on_the_cascade(ladder, job), *timing.on_the_spread(measured.rows)]
    missed, reached = ([f"{name}: {sentence}" for name, told in said.items()
                        for sentence in told[key]] for key in ("missed", "reached"))
    here = report.environment(num_threads=job.measuring.num_threads,
                              command=report.command())
    write_whole(out / "report.json", report.to_json(here, measured.rows,
                                                    measured.by_class))
    write_whole(out / publishing.REPORT, report.to_markdown(
        here, measured.rows, [*notes, *missed, *reached]))
    picture = report.to_png(measured.rows, monitor=task.monitor[0])
    if picture is not None:
        write_whole(out / "report.png", picture)
    ladder.write()
    run_dir.finish(out)
    return Result(out_dir=out, rows=measured.rows, notes=notes, missed=missed,
                  reached=[*reached, *_on(left, task)], scheme=scheme, ladder=ladder)


def _measured(job: Job, road: Road, out: Path, names: Sequence[str]) -> Measured:
    """Quality, size and time of each rung's model, all timed in turn."""
    measured = Measured()
    files = {name: out / name / manifest.MODEL_FILE for name in names}
    read: dict[str, Dataset] = {
        name: stages.as_read_by(road.job, out / name / "keras", road.dataset)
        for name in names}
    for name, file in files.items():
        measured.judge(name, runners.open_artifact(
            file, job.measuring.num_threads, read[name].tokenizer.pad_id, known=True),
            read[name])
    # Ids of the smallest vocabulary are in every other.
    smallest = min(read.values(), key=lambda own: own.tokenizer.vocab_size)
    taken = timing.times(
        files, smallest.report["dev"].encoded, num_threads=job.measuring.num_threads,
        max_tokens=job.exports.export_length or road.job.data.tokens,
        smoke=job.measuring.smoke)
    for name, figures in taken.items():
        speedup = {"speedup": taken[names[0]]["latency_p50_ms"]
                   / figures["latency_p50_ms"]} if job.speeds[:1] == (_WHOLE,) else {}
        measured.rows.extend(report.rows(
            name, cost.of_file(files[name]) | figures | speedup))
    return measured


def _on(left: Sequence[LeftOut], task: Task) -> list[str]:
    """What is said of rungs that were left out."""
    return [f"{each.name} is no rung of the ladder: {each.beaten_by} is not slower "
            f"than its {each.p50_ms:.3g} ms, and {task.monitor[0]} on dev is not worse "
            f"than its {each.quality:.4f}." for each in left]


def _on_the_cascade(ladder: Ladder, job: Job) -> str:
    """What is said of the cascade's threshold."""
    found = ladder.cascade
    if found is None and (why := named(job.task).no_cascade):
        return f"No cascade: {why}."
    if found is None:
        return ("No cascade: there is one rung, or no "
                f"threshold keeps within --cascade_max_drop={job.cascade_max_drop:g} "
                "and takes less time than the best rung.")
    steps = ", then ".join(f"{step.name} below a confidence of {step.threshold:.4f}"
                           for step in ladder.steps)
    return (f"Cascade: what is handed on by {steps}, goes to {ladder.best.name}; by "
            f"thresholds of the other folds {found.share_handed_on:.0%} of dev are "
            f"handed on by the first, and {ladder.monitor} is {found.quality:.4f} "
            f"({ladder.best.name} alone: {ladder.best.quality:.4f}).")
