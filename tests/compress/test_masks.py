"""Masks by hand: patterns, exact counts, shares, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.compress.pruning import masks
from tfopt.compress.pruning.masks import Pattern

RANDOM = np.random.default_rng(0)


def chosen(scores, sparsity, pattern="unstructured", pooling="avg"):
    scores = np.asarray(scores, np.float32)
    return masks.choose({"a": scores}, {"a": sparsity}, Pattern(pattern), pooling)["a"]


@pytest.mark.parametrize("pattern,sparsity,scores,expected", [
    ("unstructured", 0.5, [[1, 4], [3, 2]], [[0, 1], [1, 0]]),
    ("unstructured", 0.75, [[1, 4], [3, 2]], [[0, 1], [0, 0]]),
    ("unstructured", 0.99, [[1, 4], [3, 2]], [[0, 1], [0, 0]]),  # one stays
    ("rows", 0.5, [[1, 4], [3, 3]], [[0, 0], [1, 1]]),
    ("columns", 0.5, [[1, 4], [3, 3]], [[0, 1], [0, 1]]),
    # Blocks of 2 inputs by 1 output; means 2, 3.5, 2.5, 1.
    ("2x1", 0.5, [[1, 4], [3, 3], [2, 1], [3, 1]], [[0, 1], [0, 1], [1, 0], [1, 0]]),
    ("1x2", 0.5, [[1, 4], [3, 3]], [[0, 0], [1, 1]]),
    # Of two inputs in a column one.
    ("1:2", 0.5, [[1, 4], [3, 3], [5, 6], [7, 2]], [[0, 1], [1, 0], [0, 1], [1, 0]]),
])
def test_tables(pattern, sparsity, scores, expected):
    np.testing.assert_array_equal(chosen(scores, sparsity, pattern), expected)


def test_pooling_by_the_largest_or_the_mean():
    scores = [[9, 0, 5, 5]]
    np.testing.assert_array_equal(chosen(scores, 0.5, "1x2", "avg"), [[0, 0, 1, 1]])
    np.testing.assert_array_equal(chosen(scores, 0.5, "1x2", "max"), [[1, 1, 0, 0]])


@pytest.mark.parametrize("shape", [(384, 1536), (7, 13), (3, 3, 8, 4)])
@pytest.mark.parametrize("sparsity", [0.001, 0.3333, 0.5, 0.9, 0.999])
def test_exact_count_of_zeros_also_among_equal_scores(shape, sparsity):
    size = int(np.prod(shape))
    for scores in (RANDOM.normal(size=shape), np.ones(shape)):
        zeros = np.sum(chosen(scores, sparsity) == 0)
        assert zeros == min(size - 1, round(size * sparsity))
        assert zeros == masks.zeros_in(shape, sparsity, Pattern())


@pytest.mark.parametrize("pattern", ["1x4", "4x1", "1x16", "16x16", "32x32", "64x64"])
def test_blocks_are_whole_and_counted(pattern):
    mask = chosen(RANDOM.normal(size=(128, 192)) ** 2, 0.5, pattern)
    rows, columns = Pattern(pattern).block((128, 192))
    blocks = mask.reshape(128 // rows, rows, 192 // columns, columns)
    assert np.all(np.ptp(blocks, axis=(1, 3)) == 0)
    assert np.sum(mask == 0) == masks.zeros_in((128, 192), 0.5, Pattern(pattern))
    assert np.mean(mask) == 0.5


@pytest.mark.parametrize("shape", [(16, 6), (3, 3, 8, 5)])
@pytest.mark.parametrize("kept,group", [(2, 4), (4, 8), (1, 4)])
def test_exactly_n_of_m_inputs_stay(kept, group, shape):
    pattern = Pattern(f"{kept}:{group}")
    scores = RANDOM.normal(size=shape) ** 2
    mask = chosen(scores, pattern.sparsity, pattern.name)
    groups = np.moveaxis(mask, -2, -1).reshape(-1, group)
    np.testing.assert_array_equal(groups.sum(axis=1), kept)
    values = np.moveaxis(scores, -2, -1).reshape(-1, group)
    worst_kept = np.where(groups == 1, values, np.inf).min(axis=1)
    assert np.all(worst_kept >= np.where(groups == 0, values, 0).max(axis=1))


def test_n_of_m_is_approached_weight_by_weight():
    scores = RANDOM.normal(size=(16, 4)) ** 2
    kept = [chosen(scores, sparsity, "2:8").reshape(-1).sum() / 8
            for sparsity in (0.0, 0.1, 0.125, 0.5, 0.7, 0.75)]
    assert kept == [8, 8, 7, 4, 3, 2]


def test_one_threshold_for_all_kernels():
    scores = {"small": np.array([[1.0, 2.0]]), "large": np.array([[5.0, 6.0, 7.0, 8]])}
    found = masks.choose(scores, 0.5, Pattern())
    # The best of "small" stays, though "large" has better ones to lose.
    np.testing.assert_array_equal(found["small"], [[0, 1]])
    np.testing.assert_array_equal(found["large"], [[0, 0, 1, 1]])


@pytest.mark.parametrize("pattern", ["unstructured", "2x2", "rows"])
@pytest.mark.parametrize("sparsity", [0.25, 0.8])
def test_the_global_share_is_met_over_all(pattern, sparsity):
    shapes = {"a": (40, 60), "b": (100, 20), "c": (20, 200)}
    scores = {name: RANDOM.normal(size=shape) ** 2 * (i + 1)
              for i, (name, shape) in enumerate(shapes.items())}
    found = masks.choose(scores, sparsity, Pattern(pattern))
    zeros = sum(np.sum(mask == 0) for mask in found.values())
    total = sum(mask.size for mask in found.values())
    group = 200 if pattern == "rows" else 4  # what one group may be off
    assert abs(zeros - sparsity * total) <= group
    assert all(mask.any() for mask in found.values())
    shares = [1 - mask.mean() for mask in found.values()]
    assert shares[0] > shares[2]  # scores of "c" are three times as large


def test_erdos_renyi_kernel_by_hand():
    # Densities 4/4 = 1, 12/32, 24/128, all times one scale: kept are 0.25 * 164 = 41 of
    # 164 weights; "a" would keep over all, so it keeps 4 and 37 = scale * (12 + 24).
    shares = masks.erdos_renyi_kernel({"a": (2, 2), "b": (4, 8), "c": (8, 16)}, 0.75)
    scale = 37 / 36
    assert shares == pytest.approx(
        {"a": 0.0, "b": 1 - scale * 12 / 32, "c": 1 - scale * 24 / 128})


@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_erdos_renyi_kernel_meets_the_whole(sparsity):
    shapes = {f"{i}": shape for i, shape in enumerate(
        [(384, 384)] * 4 + [(384, 1536), (1536, 384), (3, 3, 8, 8), (384, 2)])}
    shares = masks.erdos_renyi_kernel(shapes, sparsity)
    sizes = {name: np.prod(shape) for name, shape in shapes.items()}
    assert all(0 <= share < 1 for share in shares.values())
    assert sum(shares[n] * sizes[n] for n in sizes) == pytest.approx(
        sparsity * sum(sizes.values()))


@pytest.mark.parametrize("name", [
    "", "4", "4x", "x4", "0x4", "4x0", "2:2", "4:2", "0:4", "row", "4x4x4", "-1x4"])
def test_a_name_of_no_pattern_is_refused(name):
    with pytest.raises(ValueError, match=f"Received: pattern='{name}'$"):
        Pattern(name)


@pytest.mark.parametrize("pattern,shape", [
    ("4x1", (6, 8)), ("1x16", (16, 8)), ("32x32", (384, 2)), ("2:4", (6, 8)),
    ("rows", (5,))])
def test_a_kernel_that_it_does_not_divide_is_named(pattern, shape):
    with pytest.raises(ValueError, match=r"Received: layer 'odd' with a kernel of "
                                         rf"shape \({shape[0]},"):
        Pattern(pattern).check("odd", shape)


def test_n_of_m_is_chosen_by_an_n_of_m_pattern_alone():
    with pytest.raises(ValueError, match=r"must be N:M\. Received: pattern='2x2'"):
        masks.keep_n_of_m(np.ones([4, 4]), Pattern("2x2"), 0.5)
