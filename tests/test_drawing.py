"""Pictures of structures and predictions: what is drawn, and when there is none."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from tfopt import drawing

DETAILS = {
    "num_heads": [2, 4, 3], "heads_kept": [[1], [], [0, 1, 2]],
    "head_scores": [[0.1, 0.2], [0.3, 0.0, 0.4, 0.2], [1.0, 0.9, 0.8]],
    "intermediate_sizes": [64, 32, 64], "neurons_kept": [8, 0, 64],
    "predicted": 1.5, "predicted_before": 6.0, "unit": "ms"}
POINTS = [("half", 1.0, 1.05), ("quarter", 0.5, 0.6), ("half", 0.9, 0.9)]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, as matplotlib has them."""
    figures = []
    save = Figure.savefig

    def seen(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", seen)
    return figures


def size(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", picture[16:24])


def widths(bars) -> list[int]:
    return [bar.get_width() for bar in bars]


def test_a_structure_shows_what_is_kept_beside_what_there_was(drawn):
    width, height = size(drawing.structure(DETAILS))
    assert width > 800 > height > 300
    figure, = drawn
    heads, neurons, _, _ = figure.axes  # the last is the colours' own
    assert list(map(widths, heads.containers)) == [[2, 4, 3], [1, 0, 3]]
    assert list(map(widths, neurons.containers)) == [[64, 32, 64], [8, 0, 64]]
    assert heads.get_title() == "4 of 9 heads kept"
    assert neurons.get_title() == "72 of 160 neurons kept"
    assert figure.get_suptitle() == "Predicted: 1.5 of 6 ms (25%)"


def test_removed_heads_are_crossed_out(drawn):
    drawing.structure(DETAILS)
    _, _, scores, _ = drawn[0].axes
    places = {tuple(place) for marks in scores.collections
              for place in marks.get_offsets().tolist()}
    assert places == {(0, 0), (0, 1), (1, 1), (2, 1), (3, 1)}  # (head, layer)


def test_nothing_is_crossed_out_where_all_is_kept(drawn):
    drawing.structure(DETAILS | {"heads_kept": [[0, 1], [0, 1, 2, 3], [0, 1, 2]]})
    assert not drawn[0].axes[2].collections


def test_a_head_that_is_not_there_has_no_colour(drawn):
    drawing.structure(DETAILS)
    image, = drawn[0].axes[2].images
    assert image.get_array().mask.tolist() == [
        [False, False, True, True], [False] * 4, [False, False, False, True]]


@pytest.mark.parametrize(("scores", "scale", "low"), [
    ([[0.1, 0.2], [0.3, 0.0, 0.4, 0.2], [1.0, 0.9, 0.8]], "Normalize", 0.0),
    ([[1e-6, 0.2], [0.3, 0.0, 0.4, 0.2], [1.0, 0.9, 0.8]], "LogNorm", 1e-6),
    ([[0.0] * 2, [0.0] * 4, [0.0] * 3], "Normalize", 0.0)])
def test_colours_are_of_logarithms_where_scores_span_decades(
        drawn, scores, scale, low):
    drawing.structure(DETAILS | {"head_scores": scores})
    image, = drawn[0].axes[2].images
    assert type(image.norm).__name__ == scale
    assert image.norm.vmin == image.get_array()[1, 1] == low  # a score of 0


@pytest.mark.parametrize("wrong", [
    {"neurons_kept": [8, 0]}, {"head_scores": [[1.0, 2.0]] * 3},
    {"heads_kept": [[2], [], []]}])
def test_lists_of_other_layers_or_heads_are_refused(wrong):
    with pytest.raises(ValueError, match="same layers and heads.*Received: details="):
        drawing.structure(DETAILS | wrong)


def test_predictions_stand_beside_the_diagonal(drawn):
    size(drawing.predictions(POINTS))
    axes, = drawn[0].axes
    _, *dots = axes.collections  # the first is the band
    assert {own.get_label(): own.get_offsets().tolist() for own in dots} == {
        "half": [[1.0, 1.05], [0.9, 0.9]], "quarter": [[0.5, 0.6]]}
    assert axes.get_title() == "67% of 3 within 10%"
    assert axes.get_xlim() == axes.get_ylim() == (0, pytest.approx(1.15 * 1.05))


def test_many_names_have_a_look_each(drawn):
    drawing.predictions([(str(i), 1.0 + i, 1.0 + i) for i in range(25)])
    looks = {(tuple(own.get_facecolor()[0]), len(own.get_paths()[0].vertices))
             for own in drawn[0].axes[0].collections[1:]}
    assert len(looks) == 25


@pytest.mark.parametrize("points", [[], [("a", 1.0, 0.0)], [("a", -1.0, 1.0)]])
def test_times_must_be_above_0(points):
    with pytest.raises(ValueError, match="above 0. Received: points="):
        drawing.predictions(points)


def test_lines_are_drawn_one_of_them_strong(drawn):
    size(drawing.lines({"ladder": [(0.5, 0.9), (3, 0.8)], "1x": [(0.5, 0.9), (3, 0.1)]},
                       x="load", y="right", strong="ladder"))
    axes, = drawn[0].axes
    ladder, other = axes.lines
    assert ladder.get_xydata().tolist() == [[0.5, 0.9], [3, 0.8]]
    assert (ladder.get_label(), other.get_label()) == ("ladder", "1x")
    assert ladder.get_linewidth() > other.get_linewidth()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("load", "right")
    with pytest.raises(ValueError, match="must be points. Received: series={}"):
        drawing.lines({}, x="load", y="right")


def test_no_picture_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert drawing.structure(DETAILS) is None
    assert drawing.predictions(POINTS) is None
    assert drawing.lines({"a": [(0, 1)]}, x="x", y="y") is None


def test_drawing_imports_no_tensorflow():
    code = ("import sys, tfopt.drawing; "
            "sys.exit('tensorflow' in sys.modules or 'matplotlib' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
