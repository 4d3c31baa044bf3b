"""Structures and predictions -> pictures: PNG bytes.

What a search among heads and neurons has kept (`compress.structure.search`), how well a
table predicted times (`measure.latency_table`), and lines of any figures. Imports no
TensorFlow; matplotlib is the extra `plot`, without which there is no picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

_BEFORE, _KEPT = "#d5dbe3", "#2b6cb0"
_DECADES = 100.0  # largest / smallest score above which the colours are of logarithms
_MARKERS = "osv^"  # one for each ten names
_BAND = 0.1  # of a prediction that counts as right: as in `pipeline.costs`


def structure(details: Mapping) -> bytes | None:
    """Draws what is left of each layer, and the scores by which heads were chosen.

    Args:
        details: of L layers, "num_heads" and "intermediate_sizes": L sizes before;
            "head_scores": L lists of a score from 0 a head, the higher the more it is
            needed; "heads_kept": L lists of heads by their numbers before;
            "neurons_kept": L counts; "predicted" and "predicted_before": the costs
            after and before; "unit": of the costs, such as "ms".

    Returns:
        A PNG; None where matplotlib (the extra `plot`) is not installed.

    Raises:
        ValueError: the lists are not of the same layers and heads.
    """
    _check(details)
    if (figure := empty(10, 3.2 + 0.3 * len(details["num_heads"]))) is None:
        return None
    layers = np.arange(len(details["num_heads"]))
    heads, neurons, scores = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    kept = list(map(len, details["heads_kept"]))
    _bars(heads, "heads", details["num_heads"], kept)
    _bars(neurons, "neurons", details["intermediate_sizes"], details["neurons_kept"])
    _heat_map(figure, scores, details)
    for axes in (heads, neurons, scores):
        axes.set(yticks=layers, ylim=(len(layers) - 0.5, -0.5))
    heads.set_ylabel("layer")
    figure.legend(*heads.get_legend_handles_labels(), ncols=2, frameon=False,
                  loc="outside lower left")
    before, after, unit = (details[name] for name in
                           ("predicted_before", "predicted", "unit"))
    figure.suptitle(f"Predicted: {_number(after)} of {_number(before)} {unit} "
                    f"({after / before:.0%})")
    return png(figure)


def predictions(points: Sequence[tuple[str, float, float]]) -> bytes | None:
    """Draws predicted against measured times, with a band of 10 % about the diagonal.

    Args:
        points: (name, predicted ms, measured ms) of each model, above 0; those of one
            name, such as of several seeds, share a colour.

    Returns:
        A PNG; None where matplotlib (the extra `plot`) is not installed.

    Raises:
        ValueError: there are no points, or one is not above 0.
    """
    if not points or not all(min(times) > 0 for _, *times in points):
        raise ValueError("There must be points, their times above 0. "
                         f"Received: points={list(points)}")
    if (figure := empty(7.5, 5.5)) is None:
        return None
    from matplotlib import colormaps

    axes = figure.subplots()
    times = np.array([point[1:] for point in points])
    ends = np.array([0, 1.15 * times.max()])
    axes.fill_between(ends, (1 - _BAND) * ends, (1 + _BAND) * ends, color=_BEFORE,
                      label=f"within {_BAND:.0%}")
    axes.plot(ends, ends, color="grey", linewidth=1, label="as predicted")
    names = dict.fromkeys(name for name, *_ in points)
    for i, name in enumerate(names):
        own = times[[other == name for other, *_ in points]]
        axes.scatter(*own.T, color=colormaps["tab10"](i % 10), s=40, zorder=3,
                     marker=_MARKERS[i // 10 % len(_MARKERS)], label=name)
    right = np.mean(np.abs(times[:, 1] / times[:, 0] - 1) <= _BAND)
    axes.set(xlabel="predicted, ms", ylabel="measured, ms", xlim=ends, ylim=ends,
             aspect="equal", title=f"{right:.0%} of {len(points)} within {_BAND:.0%}")
    figure.legend(loc="outside right upper", fontsize=8)
    return png(figure)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str,
          strong: str = "") -> bytes | None:
    """Draws lines against one another.

    Args:
        series: name -> (x, y) of each of its points.
        x: what that axis shows.
        y: the same of the other.
        strong: name of the line that is to be seen first.

    Returns:
        A PNG; None where matplotlib (the extra `plot`) is not installed.

    Raises:
        ValueError: there are no points.
    """
    if not any(series.values()):
        raise ValueError(f"There must be points. Received: series={dict(series)}")
    if (figure := empty(7.5, 4.5)) is None:
        return None
    axes = figure.subplots()
    for name, points in series.items():
        first = name == strong
        axes.plot(*zip(*points, strict=True), "o-", label=name,
                  color=_KEPT if first else None, linewidth=3 if first else 1.2,
                  zorder=3 if first else 2)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def front(points: Sequence[tuple[str, tuple[float, float], float | None, bool]],
          x: str, y: str, area: str = "") -> bytes | None:
    """Draws trials of a search, those that no other beats joined by a line.

    Args:
        points: name, (x, y), what the area of its dot shows (or None), and whether no
            other beats it.
        x: what that axis shows.
        y: the same of the other.
        area: what areas show.

    Returns:
        A PNG; None where matplotlib (the extra `plot`) is not installed.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("There must be points. Received: points=[]")
    if (figure := empty(7.5, 4.5)) is None:
        return None
    axes = figure.subplots()
    largest = max((size for *_, size, _ in points if size), default=1.0)
    for best, colour in ((False, _BEFORE), (True, _KEPT)):
        chosen = sorted(point for point in points if point[3] == best)
        if chosen:
            axes.scatter(*zip(*(place for _, place, *_ in chosen), strict=True),
                         s=[20 + 280 * (size or 0) / largest for *_, size, _ in chosen],
                         color=colour, alpha=0.7, zorder=3 if best else 2,
                         label="no other beats it" if best else "other trials")
    beaten_by_none = sorted((place for _, place, _, best in points if best))
    axes.plot(*zip(*beaten_by_none, strict=True), color=_KEPT, linewidth=1)
    for name, place, *_ in points:
        axes.annotate(name, place, textcoords="offset points", xytext=(5, 5),
                      fontsize=7)
    axes.set(xlabel=x, ylabel=y, title=f"areas: {area}" if area else None)
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def _bars(axes, what: str, before: Sequence[int], kept: Sequence[int]) -> None:
    """Bars of what is kept before those of what there was, a layer a line."""
    layers = np.arange(len(before))
    axes.barh(layers, before, color=_BEFORE, label="before")
    axes.barh(layers, kept, color=_KEPT, height=0.5, label="kept")
    for layer, (most, left) in enumerate(zip(before, kept, strict=True)):
        axes.annotate(f"{left}", (most, layer), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.25)
    axes.set(xlabel=what, title=f"{sum(kept):,} of {sum(before):,} {what} kept")


def _heat_map(figure, axes, details: Mapping) -> None:
    """Scores by layer and head, removed heads crossed out."""
    from matplotlib.colors import LogNorm, Normalize

    most = max([1, *details["num_heads"]])
    scores = np.full([len(details["num_heads"]), most], np.nan)
    for row, own in zip(scores, details["head_scores"], strict=True):
        row[:len(own)] = own
    some = scores[scores > 0]
    spans_decades = some.size and some.max() > _DECADES * some.min()
    low, high = (some.min(), some.max()) if some.size else (0.0, 1.0)
    norm: Normalize
    if spans_decades:  # zeros look like the least of the others
        norm, shown = LogNorm(low, high), np.maximum(scores, low)
    else:
        norm, shown = Normalize(0, high), scores
    image = axes.imshow(np.ma.masked_invalid(shown), norm=norm, cmap="viridis",
                        aspect="auto")
    gone = [(head, layer) for layer, (count, kept) in enumerate(
        zip(details["num_heads"], details["heads_kept"], strict=True))
        for head in sorted(set(range(count)) - set(kept))]
    if gone:
        axes.scatter(*zip(*gone, strict=True), marker="x", color="white", s=45,
                     linewidths=2.5)
        axes.scatter(*zip(*gone, strict=True), marker="x", color="crimson", s=40,
                     linewidths=1.5)
    axes.set(xlabel="head", title="Scores of heads; x: removed", xticks=range(most))
    figure.colorbar(image, ax=axes)


def _check(details: Mapping) -> None:
    counts = details["num_heads"]
    same = all(len(details[name]) == len(counts) for name in (
        "head_scores", "heads_kept", "intermediate_sizes", "neurons_kept"))
    if not same or any(len(scores) != count or not set(kept) <= set(range(count))
                       for count, scores, kept in zip(
                           counts, details["head_scores"], details["heads_kept"],
                           strict=True)):
        raise ValueError("`details` must be of the same layers and heads throughout. "
                         f"Received: details={dict(details)}")


def empty(width: float, height: float):
    """An empty figure.

    Args:
        width: in inches.
        height: the same.

    Returns:
        A matplotlib Figure; None, and the log says so, where that (the extra `plot`) is
        not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logging.info("No picture: matplotlib is missing; install tfopt[plot].")
        return None
    return Figure(figsize=(width, height), layout="constrained")


def png(figure, dpi: int = 110) -> bytes:
    """The PNG of a figure, of so many dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
