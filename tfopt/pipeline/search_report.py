"""What a search leaves for its readers: all trials as a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt import drawing, markdown
from tfopt.files import to_json, write_whole
from tfopt.metrics import Metric, shown
from tfopt.pipeline.search_journal import directory_of
from tfopt.pipeline.search_space import in_words

if TYPE_CHECKING:
    import optuna

TABLE, JSON, PICTURE = "search.md", "search.json", "search.png"


def write(study: optuna.Study, goals: Sequence[Metric], out: Path) -> list[str]:
    """Writes the trials.

    Args:
        study: whose trials they are.
        goals: its goals, in their order.
        out: directory of the search.

    Returns:
        Sentences for its report.
    """
    front = {trial.number for trial in study.best_trials}
    trials = [trial for trial in study.get_trials(deepcopy=False)
              if trial.state.is_finished()]
    write_whole(out / JSON, to_json({
        "goals": [{"name": goal.name, "better": goal.better} for goal in goals],
        "trials": [{"name": directory_of(trial.number),
                    "state": trial.state.name.lower(),
                    "params": trial.params, "on_front": trial.number in front,
                    "figures": trial.user_attrs.get("figures"),
                    "why": trial.user_attrs.get("why")} for trial in trials]},
        indent=1) + "\n")
    write_whole(out / TABLE, (
        "Figures on the part held out of train; times by the latency table.\n\n"
        + markdown.table(
            ["trial", "recipe", *(goal.name for goal in goals), "front"],
            [_line(trial, goals, trial.number in front) for trial in trials])))
    picture = None
    if len(goals) > 1:
        picture = drawing.front(
            [(directory_of(trial.number), (trial.values[1], trial.values[0]),
              trial.values[2] if len(goals) > 2 else None, trial.number in front)
             for trial in trials if trial.values], goals[1].name, goals[0].name,
            goals[2].name if len(goals) > 2 else "")
    if picture is not None:
        write_whole(out / PICTURE, picture)
    count = {name: sum(trial.state.name == name for trial in trials)
             for name in ("COMPLETE", "PRUNED", "FAIL")}
    return [f"A search of {len(trials)} trials for "
            f"{', '.join(goal.name for goal in goals)}: {len(front)} of "
            f"{count['COMPLETE']} are beaten by no other in all of them; "
            f"{count['PRUNED']} were stopped early, {count['FAIL']} could not be made. "
            f"{TABLE} has all, by figures of a part held out of train."]


def _line(trial: Any, goals: Sequence[Metric], on_front: bool) -> list[str]:
    values = ([shown(value, goal) for value, goal in zip(
        trial.values, goals, strict=True)] if trial.values
        else [trial.state.name.lower()] + [""] * (len(goals) - 1))
    return [directory_of(trial.number), in_words(trial.params), *values,
            "yes" if on_front else ""]
