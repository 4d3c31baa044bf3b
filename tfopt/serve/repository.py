"""A folder of bundles and ladders -> the models in service: loaded, replaced, unloaded.

A model is opened beside the one in service and takes its place when it has answered a
text. A request holds the version that it began with, and the last such request frees
it: Python's own count of references is what counts them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from tfopt.serve import ladder, manifest
from tfopt.serve.models import Model, open_model
from tfopt.serve.refusal import Refusal
from tfopt.types import few, shown

# Either makes a directory one that can be loaded.
_MARKS = (ladder.LADDER_FILE, manifest.MANIFEST_FILE, manifest.MODEL_FILE)
_State = tuple[tuple[str, int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class State:
    """Of a model, as clients see it.

    Attributes:
        name: of the model.
        version: in service, or None.
        reason: why there is none, or why a newer one is not in service; empty else.
    """

    name: str
    version: int | None
    reason: str


class Repository:
    """The models of a directory.

    Args:
        directory: a bundle, a ladder, or a folder of them.
        copies: of each variant, for as many threads.
        cascade: whether models that can are cascades.
        name: of the model, where the directory is one; None for the directory's.
        changed: is told each model that comes into service or goes, and whether it is
            in service now.

    Attributes:
        tried: name -> state of its files when they were last to be opened.

    Raises:
        ValueError: the directory holds no bundle, or none that opens.
    """

    def __init__(self, directory: Path, *, copies: int, cascade: bool = False,
                 name: str | None = None,
                 changed: Callable[[Model, bool], None] = lambda model, there: None):
        self._root, self._copies, self._cascade = directory, copies, cascade
        self._changed = changed
        self._lock = threading.Lock()  # one is opened at a time
        self._models: dict[str, Model] = {}
        self._versions: dict[str, int] = {}
        self.tried: dict[str, _State] = {}
        self._reasons: dict[str, str] = {}
        if not directory.is_dir():
            raise ValueError("A directory must be served: a bundle, a ladder, or a "
                             f"folder of them. Received: {directory}")
        self._single = _is_loadable(directory)
        if name is not None and (not self._single or not _is_name(name)):
            raise ValueError("A name is given to a single bundle or ladder, in one "
                             f"word without a slash. Received: {name} for {directory}")
        self._name = name or directory.resolve().name
        names = list(self.places())
        if not names:
            raise ValueError("A directory must be served: a bundle, a ladder, or a "
                             f"folder of them. Received: {directory} without any")
        refusals = []
        for name in names:
            try:
                self.load(name)
            except ValueError as error:
                refusals.append(str(error))
                logging.warning("%s is not served: %s", name, error)
        if not self._models:
            raise ValueError(refusals[0])

    def places(self) -> dict[str, Path]:
        """Name -> directory of what can be loaded, in service or not."""
        if self._single:
            return {self._name: self._root}
        root = self._root.resolve()
        try:
            found = sorted(self._root.iterdir())
        except OSError:
            return {}
        return {path.name: path for path in found
                if not path.name.startswith(".") and path.resolve().parent == root
                and _is_loadable(path)}

    def models(self) -> list[Model]:
        """Those in service, by name."""
        return [model for _, model in sorted(self._models.items())]

    def get(self, name: str | None) -> Model:
        """The model of a name; None is the only one there is.

        Raises:
            Refusal: 404, there is none; 400, no name is given, and there are several.
        """
        models = self._models
        if name is None:
            if len(models) != 1:
                raise Refusal(400, "A request must name its model where there is not "
                              f"one alone. Received: none of {few(sorted(models))}")
            return next(iter(models.values()))
        found = models.get(name)
        if found is None:
            raise Refusal(404, "A model must be one in service: "
                          f"{few(sorted(models)) or 'there is none'}. Received: "
                          f"{shown(name, 60)}", "unknown")
        return found

    def load(self, name: str) -> Model:
        """Opens what lies under a name, and puts it into service.

        Raises:
            Refusal: 404, nothing in the directory has the name; 400, it is no name, or
                what is there is damaged or half written: what was in service stays.
        """
        with self._lock:
            place = self._place(name)
            version = self._versions.get(name, 0) + 1
            self.tried[name] = state_of(place)
            try:
                model = open_model(name, version, place, copies=self._copies,
                                   cascade=self._cascade, beside=self.models())
            except (ValueError, OSError) as error:
                self._reasons[name] = str(error)
                raise Refusal(400, str(error), "damaged") from error
            self._reasons.pop(name, None)
            self._versions[name] = version
            if name in self._models:
                self._changed(self._models[name], False)
            self._models = {**self._models, name: model}
            self._changed(model, True)
            _give_back_memory()
            logging.info("In service: %s, version %d, %s", name, version,
                         ", ".join(variant.name for variant in model.variants))
            return model

    def unload(self, name: str) -> None:
        """Takes a model out of service; requests that hold it are still answered.

        Raises:
            Refusal: 404, there is no such model in service.
        """
        with self._lock:
            model = self.get(name)
            self._models = {other: kept for other, kept in self._models.items()
                            if other != name}
            self._reasons[name] = "unloaded"
            self._changed(model, False)
            logging.info("Out of service: %s", name)
            del model
            _give_back_memory()

    def index(self) -> list[State]:
        """The state of all that is in service, or could be."""
        models = self._models
        names = {*models, *self.places(), *self._reasons}
        return [State(name, models[name].version if name in models else None,
                      self._reasons.get(name, "")) for name in sorted(names)]

    def _place(self, name: str) -> Path:
        if not _is_name(name):
            raise Refusal(400, "A model's name must be that of a directory in the one "
                          f"that is served. Received: {shown(name, 60)}")
        place = self.places().get(name)
        if place is None:
            raise Refusal(404, "A model must be a bundle or a ladder in the directory "
                          f"that is served. Received: {shown(name, 60)}", "unknown")
        return place


def state_of(place: Path) -> _State:
    """By which a change of a bundle's or a ladder's files is known."""
    found = []
    for path in [*(place / name for name in _MARKS),
                 *place.glob(f"*/{manifest.MANIFEST_FILE}")]:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((path.relative_to(place).as_posix(), status.st_ino,
                      status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


def _is_name(name: str) -> bool:
    return (bool(name) and Path(name).name == name and name[0] != "."
            and "\0" not in name)


def _is_loadable(directory: Path) -> bool:
    try:
        return any((directory / name).is_file() for name in _MARKS)
    except OSError:
        return False


def _give_back_memory() -> None:
    """Has the C library give back what it keeps of models that are gone.

    Of threads' arenas it would keep all: a reload more took 65 MB more for four rungs
    of MiniLM.
    """
    with contextlib.suppress(AttributeError):  # another library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def describe(state: State) -> dict[str, Any]:
    """A state as the protocol's index has it."""
    return {"name": state.name,
            "state": "UNAVAILABLE" if state.version is None else "READY",
            "reason": state.reason,
            **({} if state.version is None else {"version": str(state.version)})}
