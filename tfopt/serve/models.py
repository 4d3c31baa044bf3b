"""Bundles, opened -> what a service answers by: a model, and its variants.

A model is one version of what clients ask for by name; its variants are the rungs of a
ladder, or a bundle alone. Both stay as they are: a new version is another object, and
this one goes when the last request that holds it has its answer.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from tfopt.serve.bundle import Bundle
from tfopt.serve.estimates import Estimates, bucket_of
from tfopt.serve.ladder import Ladder
from tfopt.serve.reference import Reference
from tfopt.tasks import Task
from tfopt.types import few

_TIMED = 2  # times of each length, the least of which counts


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One rung of a model.

    Attributes:
        name: of the rung.
        bundle: answers.
        times: how long an answer takes.
        reference: what is usual for it, of dev; None where its bundle has none.
    """

    name: str
    bundle: Bundle
    times: Estimates
    reference: Reference | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """One version of a model in service.

    Attributes:
        name: by which clients ask for it.
        version: counts from 1.
        variants: from the most accurate to the fastest.
        steps: of a cascade, the variants that may hand on, as they are asked, each
            with the least confidence with which its answer is kept; else empty.
        answers: names of what the task's answers have, such as label and score.
    """

    name: str
    version: int
    variants: tuple[Variant, ...]
    steps: tuple[tuple[Variant, float], ...]
    answers: tuple[str, ...]

    @property
    def first(self) -> Variant:
        """The variant by whose tokenizer a text is read first."""
        return self.steps[0][0] if self.steps else self.variants[-1]

    @property
    def task(self) -> Task:
        """What all variants are for."""
        return self.variants[0].bundle.task

    def variant(self, name: str) -> Variant | None:
        """The variant of a name, if there is one."""
        return next((variant for variant in self.variants if variant.name == name),
                    None)


def open_model(name: str, version: int, directory: Path, *, copies: int,
               cascade: bool = False, beside: Sequence[Model] = ()) -> Model:
    """Opens a bundle or a ladder; each variant has answered a text before it is ready.

    Args:
        name: by which clients will ask.
        version: of it.
        directory: of the bundle or ladder.
        copies: of each variant, for as many threads.
        cascade: whether a faster variant answers first, where the ladder says which.
        beside: models whose tokenizers are taken where they are the same.

    Returns:
        The model.

    Raises:
        ValueError: a file is missing, damaged or half written, rungs differ in their
            task, or a cascade has no threshold.
    """
    ladder = Ladder.read(directory)
    if cascade and len(ladder.rungs) > 1 and ladder.cascade is None:
        raise ValueError("A cascade needs a ladder with a threshold for it. Received: "
                         f"{directory}")
    others = [variant.bundle for model in beside for variant in model.variants]
    bundles: list[Bundle] = []
    for rung in ladder.rungs:
        bundles.append(Bundle.open(ladder.path(rung), num_threads=1, copies=copies,
                                   beside=[*bundles, *others], private=True))
    tasks = {repr(bundle.task.unfitted): bundle.task for bundle in bundles}
    if len(tasks) > 1:
        raise ValueError("All rungs of a ladder must be of one task. Received: "
                         f"{directory} with {few(tasks)}")
    variants = tuple(Variant(name=rung.name, bundle=bundle, times=_timed(bundle),
                             reference=Reference.read(ladder.path(rung)))
                     for rung, bundle in zip(ladder.rungs, bundles, strict=True))
    answer, = variants[0].bundle.predict(["a"])
    by_name = {variant.name: variant for variant in variants}
    return Model(name=name, version=version, variants=variants, answers=tuple(answer),
                 steps=tuple((by_name[step.name], step.threshold)
                             for step in ladder.steps) if cascade else ())


def _timed(bundle: Bundle) -> Estimates:
    """How long a bundle takes for texts of each length up to its longest."""
    bundle.warm()
    word = bundle.encode(["a"]).ids[0][:1]
    seconds: dict[int, float] = {}
    for bucket in range(bucket_of(bundle.max_length) + 1):
        ids = word * min(1 << bucket, bundle.max_length)
        try:
            bundle.run(ids)
        except ValueError:  # it has fewer positions than its longest text
            break
        seconds[bucket] = min(_seconds(bundle, ids) for _ in range(_TIMED))
    return Estimates(seconds)


def _seconds(bundle: Bundle, ids: Sequence[int]) -> float:
    begun = time.perf_counter()
    bundle.run(ids)
    return time.perf_counter() - begun


def confidence(answer: dict) -> float | None:
    """The probability of what an answer says; None where a task has none."""
    return answer.get("score") if "scores" in answer else None

