"""Which weights go: masks from scores, by pattern and by share of each kernel.

All on the host, in NumPy, by selection rather than sorting: the masks of a BERT are
chosen in tenths of a second, now and then, and need no place in the compiled step.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

ALLOCATIONS = ("uniform", "global", "erdos_renyi_kernel")
POOLINGS = ("avg", "max")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Which weights are kept or zeroed together, in a kernel <float>[..., K, N].

    Attributes:
        name: "unstructured"; "RxC", blocks of R inputs by C outputs (tfmot's
            `block_size`); "N:M", of M consecutive inputs to an output N are kept;
            "rows" or "columns", all weights of an input or of an output.
    """

    name: str = "unstructured"

    def __post_init__(self):
        """Checks the name.

        Raises:
            ValueError: it names no pattern, or N is not below M.
        """
        if self.name in ("unstructured", "rows", "columns"):
            return
        numbers = self._numbers()
        if numbers is None or min(numbers) < 1:
            raise ValueError("`pattern` must be 'unstructured', 'rows', 'columns', a "
                             "block such as '4x1', or N:M such as '2:4'. Received: "
                             f"pattern={self.name!r}")
        if self.kept_of and self.kept_of[0] >= self.kept_of[1]:
            raise ValueError("`pattern` N:M must keep fewer than all M. Received: "
                             f"pattern={self.name!r}")

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """(N, M) of an N:M pattern, else None."""
        return self._numbers() if ":" in self.name else None

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the pattern fixes: of N:M, 1 - N / M; else None."""
        return 1 - self.kept_of[0] / self.kept_of[1] if self.kept_of else None

    def block(self, shape: Sequence[int]) -> tuple[int, int]:
        """(R, C), the inputs and outputs of a group in a kernel of this shape."""
        if self.name == "rows":
            return 1, shape[-1]
        if self.name == "columns":
            return shape[-2], 1
        block = None if self.kept_of else self._numbers()
        return block or (1, 1)  # single weights, and those of N:M

    def check(self, layer: str, shape: Sequence[int]) -> None:
        """Checks that the pattern fits a kernel.

        Raises:
            ValueError: the kernel has no inputs and outputs, or they are no multiples
                of the pattern's; names the layer.
        """
        rows, columns = self.block(shape)
        if self.kept_of:
            rows = self.kept_of[1]
        if len(shape) < 2 or shape[-2] % rows or shape[-1] % columns:
            raise ValueError(
                f"The pattern {self.name!r} must divide every kernel that is pruned. "
                f"Received: layer {layer!r} with a kernel of shape {tuple(shape)}")

    def _numbers(self) -> tuple[int, int] | None:
        found = re.fullmatch(r"(\d+)[x:](\d+)", self.name)
        return (int(found[1]), int(found[2])) if found else None


def pool(scores: np.ndarray, pattern: Pattern, pooling: str = "avg") -> np.ndarray:
    """One score for each group of weights that go together.

    Args:
        scores: <float>[..., K, N], one for each weight.
        pattern: which weights are a group.
        pooling: "avg" or "max" of a group's scores.

    Returns:
        <float>[..., K / R, N / C].
    """
    rows, columns = pattern.block(scores.shape)
    if (rows, columns) == (1, 1):
        return scores
    blocks = scores.reshape(*scores.shape[:-2], scores.shape[-2] // rows, rows,
                            scores.shape[-1] // columns, columns)
    return (blocks.mean if pooling == "avg" else blocks.max)(axis=(-3, -1))


def spread(kept: np.ndarray, pattern: Pattern, shape: Sequence[int]) -> np.ndarray:
    """The mask <float32>[shape] of weights from that of their groups."""
    rows, columns = pattern.block(shape)
    return kept.repeat(rows, axis=-2).repeat(columns, axis=-1).astype(np.float32)


def keep_largest(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Marks the largest scores.

    Args:
        scores: <float>[...].
        sparsity: fraction not to keep; rounded to a count, and one is always kept.

    Returns:
        <bool>[...], exactly that many of them False; of equal scores, any.
    """
    flat = scores.ravel()
    zeros = zero_count(flat.size, sparsity)
    kept = np.ones(flat.size, bool)
    if zeros:
        kept[np.argpartition(flat, zeros - 1)[:zeros]] = False
    return kept.reshape(scores.shape)


def zero_count(size: int, sparsity: float) -> int:
    """How many of so many go at a sparsity: rounded, and one stays."""
    return min(size - 1, round(size * sparsity))


def zeros_in(shape: Sequence[int], sparsity: float, pattern: Pattern) -> int:
    """How many weights of a kernel of this shape go at a sparsity of its own."""
    size, group = int(np.prod(shape)), int(np.prod(pattern.block(shape)))
    if pattern.sparsity:
        return round(size * pattern.sparsity)
    return zero_count(size // group, sparsity) * group


def least_zeros(shapes: Mapping[str, Sequence[int]], sparsity: float,
                pattern: Pattern) -> int:
    """How many weights go at least where all kernels have one bound.

    Of groups, one that does not fit and the best one of each kernel may stay.
    """
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    group = max(int(np.prod(pattern.block(shape))) for shape in shapes.values())
    slack = 1 if group == 1 else group * (len(shapes) + 1)
    return max(1, int(sparsity * total) - slack)


def keep_n_of_m(scores: np.ndarray, pattern: Pattern, sparsity: float) -> np.ndarray:
    """Marks the largest N of every M consecutive inputs to an output.

    Args:
        scores: <float>[..., K, N].
        pattern: an N:M pattern, M a divisor of K.
        sparsity: below the pattern's own, on the way to it, more than N are kept.

    Returns:
        <bool>[..., K, N].

    Raises:
        ValueError: the pattern is no N:M.
    """
    if pattern.kept_of is None:
        raise ValueError("`pattern` must be N:M. Received: pattern="
                         f"{pattern.name!r}")
    least, group = pattern.kept_of
    number = max(least, group - int(sparsity * group + 1e-6))
    groups = np.moveaxis(scores, -2, -1).reshape(-1, group)
    kept = np.zeros(groups.shape, bool)
    best = np.argpartition(-groups, number - 1, axis=1)[:, :number]
    np.put_along_axis(kept, best, True, axis=1)
    moved = (*scores.shape[:-2], scores.shape[-1], scores.shape[-2])
    return np.moveaxis(kept.reshape(moved), -1, -2)


def choose(scores: Mapping[str, np.ndarray], sparsities: Mapping[str, float] | float,
           pattern: Pattern, pooling: str = "avg") -> dict[str, np.ndarray]:
    """The masks of a model.

    Args:
        scores: layer -> <float>[..., K, N], the larger the more to be kept.
        sparsities: layer -> sparsity; or one for all kernels together, with one
            threshold, of which each keeps its best group at least.
        pattern: which weights go together.
        pooling: how a group's scores become one.

    Returns:
        layer -> <float32>[..., K, N] of ones and zeros.
    """
    pooled = {name: pool(value, pattern, pooling) for name, value in scores.items()}
    if not isinstance(sparsities, Mapping):
        kept = _keep_largest_of_all(pooled, sparsities, pattern, scores)
    elif pattern.kept_of:
        kept = {name: keep_n_of_m(value, pattern, sparsities[name])
                for name, value in pooled.items()}
    else:
        kept = {name: keep_largest(value, sparsities[name])
                for name, value in pooled.items()}
    return {name: spread(value, pattern, scores[name].shape)
            for name, value in kept.items()}


def _keep_largest_of_all(pooled, sparsity, pattern, scores) -> dict[str, np.ndarray]:
    values, counts = [], []
    for name, value in pooled.items():
        # A layer without a weight would cut the model in two.
        value = value.astype(np.float64).ravel()
        value[value.argmax()] = np.inf
        values.append(value)
        rows, columns = pattern.block(scores[name].shape)
        counts.append(np.full(value.size, rows * columns))
    flat, sizes = np.concatenate(values), np.concatenate(counts)
    if np.ptp(sizes) == 0:
        kept = keep_largest(flat, sparsity)
    else:  # groups of several sizes, such as rows: count weights, not groups
        order = np.argsort(flat, kind="stable")
        gone = np.cumsum(sizes[order]) <= sparsity * sizes.sum() + 1e-6
        kept = np.ones(flat.size, bool)
        kept[order[gone & np.isfinite(flat[order])]] = False
    parts = np.split(kept, np.cumsum([value.size for value in pooled.values()])[:-1])
    return {name: part.reshape(value.shape)
            for (name, value), part in zip(pooled.items(), parts, strict=True)}


def erdos_renyi_kernel(shapes: Mapping[str, Sequence[int]],
                       sparsity: float) -> dict[str, float]:
    """Shares out a sparsity so that large kernels bear more of it.

    A kernel's density is in proportion to the sum of its dimensions over their product,
    and 1 where that would be more. Evci et al. 2020, "Rigging the lottery",
    arXiv:1911.11134, section 3.

    Args:
        shapes: layer -> shape of its kernel.
        sparsity: of all kernels together.

    Returns:
        layer -> sparsity.
    """
    sizes = {name: float(np.prod(shape)) for name, shape in shapes.items()}
    raw = {name: float(np.sum(shape)) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set() if sparsity else set(shapes)
    while len(dense) < len(shapes):
        budget = (1 - sparsity) * sum(sizes.values()) - sum(
            sizes[name] for name in dense)
        scale = budget / sum(raw[name] * sizes[name] for name in raw
                             if name not in dense)
        over = {name for name in raw if name not in dense and scale * raw[name] > 1}
        if not over:
            return {name: 0.0 if name in dense else 1 - scale * raw[name]
                    for name in shapes}
        dense |= over
    return dict.fromkeys(shapes, 0.0)
