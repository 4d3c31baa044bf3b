"""How long an answer will take: a moving mean for each length of text.

Each new time moves the mean by a tenth. Without new times it goes back to what was
measured at loading, so that a slow second does not put a variant out of use for good:
one that is not chosen is not timed either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_WEIGHT = 0.1  # of a new time
_OUTLIER = 4.0  # times the mean; a longer time counts as this
_FORGOTTEN_S = 5.0  # after which a deviation from the first time is 1/e of what it was
# Letters of an English token, by which a text's length is guessed before it is read.
_LETTERS, _SPECIALS = 4.5, 2


def bucket_of(tokens: int) -> int:
    """The bucket of a length: 1, 2, 3 to 4, 5 to 8 tokens, and so on by doubling."""
    return max(0, tokens - 1).bit_length()


def guessed_tokens(letters: int, most: int) -> int:
    """About how many tokens a text has.

    Args:
        letters: of the text, or of both of a pair.
        most: tokens to which texts are cut.
    """
    return min(most, _SPECIALS + math.ceil(letters / _LETTERS))


class Estimates:
    """Seconds of an answer by bucket; any number of threads may use it.

    Args:
        measured: bucket -> seconds at loading; at least one. A bucket that is missing
            takes those of the nearest one.

    Raises:
        ValueError: there is none, or a time is not above 0.
    """

    def __init__(self, measured: Mapping[int, float]):
        if not measured or min(measured.values()) <= 0:
            raise ValueError("There must be a time above 0 of one bucket or more. "
                             f"Received: {dict(measured)}")
        last = max(measured)
        self._first = [measured[min(measured, key=lambda known: abs(known - bucket))]
                       for bucket in range(last + 1)]
        # (mean, when) of each: replaced as one, for threads write side by side.
        self._means = [(seconds, 0.0) for seconds in self._first]

    def value(self, bucket: int, now: float) -> float:
        """Seconds that an answer is expected to take.

        Args:
            bucket: of its tokens.
            now: seconds of any clock that does not go back, the same at each call.
        """
        bucket = min(bucket, len(self._first) - 1)
        first, (mean, when) = self._first[bucket], self._means[bucket]
        return first + (mean - first) * math.exp((when - now) / _FORGOTTEN_S)

    def add(self, bucket: int, seconds: float, now: float) -> None:
        """Takes note of a time."""
        bucket = min(bucket, len(self._first) - 1)
        mean = self.value(bucket, now)
        counted = min(seconds, _OUTLIER * mean)
        self._means[bucket] = mean + _WEIGHT * (counted - mean), now
