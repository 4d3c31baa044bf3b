"""How a run exports: ranges, length, and for whose clients.

Imports no TensorFlow but within functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfopt.pipeline.option import Options, option


def _methods() -> Sequence[str]:
    from tfopt.export import calibrate  # brings LiteRT

    return calibrate.METHODS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exports(Options):
    """How the model is exported."""

    calibration_texts: int = option(
        300, "Texts of the train file by which exports with static ranges are "
        "calibrated.", at_least=0)
    ranges: str = option(
        "min_max", "How ranges are taken from them: all; all but the outermost 0.01 %; "
        "those that lose least in mean square.", choices=_methods)
    export_length: int | None = option(
        None, "Tokens of the exported input. Left out: open, resized per request.",
        at_least=4)
    metadata: bool = option(
        True, "Put probabilities, vocabulary and labels into each .tflite, by which "
        "MediaPipe's clients on phones and in browsers open it, where it may have "
        "them (docs/edge.md).")
    for_old_runtimes: bool = option(
        False, "Give the table of words one scale in place of one for each row, for "
        "runtimes such as MediaPipe 0.10.14 and older, which compute nonsense of the "
        "latter without a word.")
