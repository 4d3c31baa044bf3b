"""Examples that come two and two -> batches in which they stay next to each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfopt.data.batches import Batches, plan
from tfopt.data.tokenizer_json import Encoded


class PairedBatches(Batches):
    """Batches of examples 0 and 1, 2 and 3, and so on, each two side by side.

    Args:
        encoded: token ids of N examples.
        targets: as of `Batches`.
        **options: the same.

    Raises:
        ValueError: N or the batch size is odd, or as of `Batches`.
    """

    def __init__(self, encoded: Encoded, targets: Any = None, **options: Any):
        super().__init__(encoded, targets, **options)
        if len(self) % 2 or self.batch_size % 2:
            raise ValueError(
                "Texts that are compared two and two need an even number of them, and "
                f"an even batch size. Received: {len(self)} texts, batch_size="
                f"{self.batch_size}")

    def epoch_plan(self, epoch: int) -> list[np.ndarray]:
        """The index arrays of one epoch's batches, in their order."""
        lengths, size = self.lengths.reshape([-1, 2]).max(axis=1), self.batch_size // 2
        if self.shuffle_seed is not None:
            pairs = plan(lengths, size, self.shuffle_seed, epoch, self.drop_remainder,
                         self.sort_window)
        else:
            order = np.argsort(lengths, kind="stable")
            pairs = np.split(order, range(size, len(order), size))
            if self.drop_remainder and len(pairs[-1]) < size:
                pairs.pop()
        return [np.stack([2 * part, 2 * part + 1], axis=1).reshape(-1)
                for part in pairs]
