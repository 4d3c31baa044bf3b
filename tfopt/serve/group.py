"""Texts that wait -> those a worker takes at once, read together and sorted by length.

One call of the tokenizer for several texts costs less than a call for each, and texts
of the same length one after the other spare the model a change of length.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tfopt.data.places import Places
from tfopt.data.tokenizer import Encoded
from tfopt.serve.models import Variant
from tfopt.serve.request import Request

# Seconds that a group may take: an answer of longer is not worth the wait of others.
GROUP_S = 0.005


class Waiting(NamedTuple):
    """A text of a request: its place there, and seconds that it is expected to take."""

    request: Request
    number: int
    expected_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """What is read of a text.

    Attributes:
        ids: of its tokens.
        first_length: how many of these are of the first segment.
        truncated: whether it was cut.
        places: where its tokens stand, for a task whose answers name places.
    """

    ids: list[int]
    first_length: int
    truncated: bool
    places: Places | None = None

    def encoded(self) -> Encoded | None:
        """What a task reads an answer by; None where it needs none."""
        return None if self.places is None else Encoded(
            ids=[self.ids], first_lengths=[self.first_length], places=[self.places])


def in_order(group: Sequence[Waiting], tokens: int
             ) -> list[tuple[Waiting, Text | None]]:
    """The texts of a group in the order in which they are best computed.

    Args:
        group: N texts, the oldest first.
        tokens: of the text that was computed before.

    Returns:
        The N texts, and what was read of each; None is to be read alone. Texts of as
        many tokens come first, then shorter before longer ones. Where the group takes
        long, the order stays.
    """
    if len(group) == 1:
        return [(group[0], None)]
    found = list(zip(group, _read_together(group), strict=True))
    if sum(item.expected_s for item in group) < GROUP_S:
        found.sort(key=lambda each: _turn(each[1], tokens))
    return found


def _turn(text: Text | None, tokens: int) -> tuple[bool, int]:
    count = 0 if text is None else len(text.ids)
    return count != tokens, count


def _read_together(group: Sequence[Waiting]) -> list[Text | None]:
    """Reads texts by a call for all that one tokenizer reads alike."""
    alike: dict[tuple, list[int]] = collections.defaultdict(list)
    for place, (request, _, _) in enumerate(group):
        bundle = request.first_variant.bundle
        alike[id(bundle.tokenizer), bundle.max_length, request.pairs is None,
              not request.ids].append(place)
    found: list[Text | None] = [None] * len(group)
    for places in alike.values():
        items = [group[place] for place in places]
        # Of a text that cannot be read the others know nothing: each is read alone.
        with contextlib.suppress(Exception):
            for place, text in zip(places, _encoded(items), strict=True):
                found[place] = text
    return found


def _encoded(items: Sequence[Waiting]) -> list[Text | None]:
    first = items[0].request
    if first.ids:
        return [Text(*item.request.ids[item.number], False) for item in items]
    bundle = first.first_variant.bundle
    encoded = bundle.encode(
        [item.request.texts[item.number] for item in items],
        None if first.pairs is None else
        [item.request.pairs[item.number] for item in items if item.request.pairs])
    # Of several texts it is known how many were cut, not which.
    return [None if encoded.truncated and len(ids) == bundle.max_length
            else Text(ids, first_length, False, place)
            for ids, first_length, place in itertools.zip_longest(
                encoded.ids, encoded.first_lengths, encoded.places or ())]


def read(request: Request, number: int, variant: Variant) -> Text:
    """Reads one text of a request, as a variant does."""
    if request.ids:
        return Text(*request.ids[number], False)
    pairs = None if request.pairs is None else [request.pairs[number]]
    encoded = variant.bundle.encode([request.texts[number]], pairs)
    return Text(encoded.ids[0], encoded.first_lengths[0], bool(encoded.truncated),
                encoded.places[0] if encoded.places else None)
