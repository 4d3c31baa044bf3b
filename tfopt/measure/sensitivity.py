"""What each operation of an export loses, and the export that loses no more than asked.

Quantized is one operation at a time ("alone"), or all but one ("all_but"). Its loss is
given as the signal-to-quantization-noise ratio of its own output and of the logits,
SQNR = 10 log10(sum x^2 / sum (x - y)^2) in dB, and by the value of the task's own
metric that the file reaches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from tfopt.export import calibrate, tflite
from tfopt.export.calibrate import Example
from tfopt.export.ranges import FloatGraph
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification

MODES = ("alone", "all_but")
_EXAMPLES = 32  # by which tensors are compared
# The operations that are worth a file of their own to judge them by.
_KINDS = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP", "BATCH_MATMUL", "GATHER", "CONV_2D")

Judge = Callable[[bytes], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """What one operation loses.

    Attributes:
        name: of its output.
        kind: of the operation.
        output_sqnr_db: of its output; nan where the export keeps it to itself.
        logits_sqnr_db: of the logits.
        value: of the file, of the metric that the task monitors.
    """

    name: str
    kind: str
    output_sqnr_db: float
    logits_sqnr_db: float
    value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarded:
    """An export within a budget, or the best there is.

    Attributes:
        contents: the `.tflite`.
        value: of it, of the metric that the task monitors.
        reference: that of the export in float.
        left: operations that stayed in float -> why.
        met: whether the budget holds.
    """

    contents: bytes
    value: float
    reference: float
    left: dict[str, str]
    met: bool


def losses(
    graph: FloatGraph,
    scheme: str,
    examples: Sequence[Example],
    judge: Judge,
    *,
    mode: str = "alone",
    method: str = "min_max",
) -> Iterator[Loss]:
    """Judges each operation that a scheme quantizes.

    Args:
        graph: from `tflite.float_graph`.
        scheme: an export with rules.
        examples: to calibrate by; the first of them compare tensors.
        judge: value of a `.tflite`, of the metric that the task monitors.
        mode: "alone" or "all_but".
        method: one of `calibrate.METHODS`.

    Yields:
        The losses, in the graph's order.

    Raises:
        ValueError: the mode or the scheme is unknown, or there are no examples.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
    some = examples[:_EXAMPLES]
    expected = calibrate.values(
        tflite.prepared(graph, scheme, calibration=examples), some)
    for name, kind in tflite.operations(graph, scheme, calibration=examples).items():
        if kind not in _KINDS:
            continue
        only = {"alone": [name]} if mode == "alone" else {"leave": [name]}
        contents = tflite.quantize(graph, scheme, calibration=examples, method=method,
                                   **only)
        found = calibrate.values(contents, some)
        yield Loss(name=name, kind=kind, value=judge(contents),
                   output_sqnr_db=_sqnr_db(expected, found, name),
                   logits_sqnr_db=_sqnr_db(expected, found, calibrate.LOGITS))


def within(
    graph: FloatGraph,
    scheme: str,
    examples: Sequence[Example],
    judge: Judge,
    *,
    max_drop: float,
    method: str = "min_max",
    task: Task = Classification(),  # noqa: B008
) -> Guarded:
    """Leaves the most harmful operations in float until a budget holds.

    Tried are all operations quantized, then without the most harmful one, two, four and
    so on; those harm most that alone lose most, then those with the noisiest logits.

    Args:
        graph: from `tflite.float_graph`.
        scheme: an export with rules.
        examples: to calibrate by.
        judge: value of a `.tflite`, of the metric that the task monitors.
        max_drop: what it may lose against float, as of `Task.drop`: points, where the
            task's metric is a fraction.
        method: one of `calibrate.METHODS`.
        task: whose metric it is.

    Returns:
        The first export within the budget, or the best one.

    Raises:
        ValueError: as of `losses`, or the budget is negative.
    """
    if max_drop < 0:
        raise ValueError("The budget must be at least 0. Received: "
                         f"max_drop={max_drop}")
    reference = judge(graph.contents)

    def tried(left):
        contents = tflite.quantize(graph, scheme, calibration=examples, method=method,
                                   leave=list(left))
        value = judge(contents)
        return Guarded(contents=contents, value=value, reference=reference, left=left,
                       met=task.drop(reference, value) <= max_drop + 1e-7)

    best = tried({})
    if best.met:
        return best
    ranked = sorted(losses(graph, scheme, examples, judge, method=method), key=lambda
                    loss: (-task.drop(reference, loss.value), loss.logits_sqnr_db))
    count = 1
    while ranked:
        worst = ranked[:count]
        found = tried({loss.name: _harm(loss, task, reference) for loss in worst})
        logging.info("%s with %d operations in float: %s %.4f of %.4f", scheme,
                     len(worst), task.monitor[0], found.value, reference)
        if found.met or task.better(found.value, best.value):
            best = found
        if found.met or count >= len(ranked):
            break
        count *= 2
    return best


def _harm(loss: Loss, task: Task, reference: float) -> str:
    return (f"alone it loses {task.drop(reference, loss.value):.2f} {task.drop_unit}, "
            f"and the logits have {loss.logits_sqnr_db:.1f} dB")


def _sqnr_db(expected, found, name: str) -> float:
    """Over all examples; of a static operation, of what is widened again."""
    key = next((key for key in (f"{name}_dequant", name)
                if all(key in values for values in found)), None)
    if key is None or any(name not in values for values in expected):
        return float("nan")
    signal = sum(float(np.sum(np.square(x[name], dtype=np.float64))) for x in expected)
    noise = sum(float(np.sum(np.square(x[name] - y[key], dtype=np.float64)))
                for x, y in zip(expected, found, strict=True))
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))
