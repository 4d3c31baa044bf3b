"""The tasks there are, and a task's own file beside a model.

A module of `tfopt.tasks` that defines one task is found by its name; `task.json` says
which task a saved model was trained for.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt.files import read_json, to_json, write_whole
from tfopt.tasks.base import Task
from tfopt.types import PathLike, check_types, shown

FILE = "task.json"
CONFIG_FILE = "config.json"
_NO_TASKS = ("base", "entities", "figures", "judged", "optional", "registry",
             "tagged_words")


@functools.cache
def all_tasks() -> dict[str, type[Task]]:
    """Every task by name.

    Raises:
        TypeError: a module does not define exactly one task.
    """
    from tfopt import tasks

    found = {}
    for info in pkgutil.iter_modules(tasks.__path__):
        if info.name in _NO_TASKS:
            continue
        module = importlib.import_module(f"{tasks.__name__}.{info.name}")
        own = [value for value in vars(module).values()
               if isinstance(value, type) and issubclass(value, Task)
               and value.__module__ == module.__name__]
        if len(own) != 1:
            raise TypeError("A module of tasks must define exactly one. Received: "
                            f"{module.__name__} with {[c.__name__ for c in own]}")
        found[info.name] = own[0]
    return found


def named(name: str) -> type[Task]:
    """The task of a name.

    Raises:
        ValueError: there is none; says which there are.
    """
    if name not in all_tasks():
        raise ValueError(f"A task must be one of {sorted(all_tasks())}. "
                         f"Received: task={shown(name)}")
    return all_tasks()[name]


def from_fields(fields: Mapping[str, Any]) -> Task:
    """Makes a task from its JSON values, as `Task.to_fields` gives them.

    Raises:
        ValueError: the name or a field is unknown, or a value is of the wrong type.
    """
    values = dict(fields)
    name = values.pop("task", None)
    kind = named(name) if isinstance(name, str) else named(repr(name))
    known = {field.name for field in dataclasses.fields(kind)}
    labels = values.get("labels", [])
    if set(values) - known or not isinstance(labels, list | tuple) or not all(
            isinstance(label, str) for label in labels):
        raise ValueError(f"The task {name!r} has the fields {sorted(known)}, its "
                         f"labels a list of words. Received: {shown(dict(fields))}")
    task = kind(**{key: tuple(value) if isinstance(value, list) else value
                   for key, value in values.items()})
    check_types(task)
    return task


def save(task: Task, directory: PathLike) -> None:
    """Writes `task.json` beside a model."""
    write_whole(Path(directory) / FILE, to_json(task.to_fields(), indent=1,
                                                   ensure_ascii=False) + "\n")


def read(directory: PathLike, labels: Sequence[str] | None = None) -> Task | None:
    """The task that the model of a directory was trained for.

    Args:
        directory: of a Keras model, an export or a published checkpoint.
        labels: label words that lie there, by class number; those of a directory
            without `task.json` are classes, or what the architecture in `config.json`
            says.

    Returns:
        The task; None where nothing says which.

    Raises:
        ValueError: the file is no task; names it.
    """
    file = Path(directory) / FILE
    if not file.exists():
        try:
            return _published(file.parent)(labels=tuple(labels)) if labels else None
        except ValueError as error:
            raise ValueError(f"{error}, of {directory}") from error
    try:
        return from_fields(read_json(file))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"A task's file must be as `save` writes it: {error} "
                         f"Received: {file}") from error


def _published(directory: Path) -> type[Task]:
    """The task of a checkpoint as others publish them, by what its config says."""
    config = directory / CONFIG_FILE
    fields = read_json(config) if config.is_file() else {}
    made = fields.get("architectures")
    names = [str(name) for name in made] if isinstance(made, list) else []
    for kind in all_tasks().values():
        if (kind.published_as and any(name.endswith(kind.published_as)
                                      for name in names)
                or kind.problem_type and fields.get("problem_type")
                == kind.problem_type):
            return kind
    return named("classification")
