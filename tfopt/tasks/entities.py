"""Tags of words -> entities, by the rules of conlleval and of seqeval's default mode.

A tag is O, or B-, I-, E- or S- with a type. An entity begins at a B- or S-, and at an
I- or E- that continues none of its type; it ends before such a beginning, before an O
and behind an E- or S-. So an I- without its B- begins an entity, and IOB, IOB2 and
IOBES files are read by one rule. Source: Tjong Kim Sang and De Meulder 2003
(arXiv:cs/0306050), whose script conlleval is. No NumPy, no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

OUTSIDE = "O"
# What may follow within an entity, and behind what it may.
CONTINUING, OPEN = "IE", "BI"
_KINDS = "BIES"


def parse(tag: str) -> tuple[str, str]:
    """Takes a tag apart.

    Args:
        tag: such as "O" or "B-person".

    Returns:
        Its first letter, and the type of its entity; of O no type.

    Raises:
        ValueError: it is no tag.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    kind, dash, type_ = tag.partition("-")
    if kind not in tuple(_KINDS) or not dash or not type_:
        raise ValueError("A tag must be O, or B-, I-, E- or S- with a type, such as "
                         f"B-person. Received: {tag[:60]!r}")
    return kind, type_


def continues(before: tuple[str, str], tag: tuple[str, str]) -> bool:
    """Whether a parsed tag is of the same entity as the one before it."""
    return tag[0] in CONTINUING and before[0] in OPEN and before[1] == tag[1]


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a text.

    Args:
        tags: of its words.

    Returns:
        (type, number of the first word, one behind that of the last) of each.

    Raises:
        ValueError: a tag is none.
    """
    found: list[tuple[str, int, int]] = []
    before = OUTSIDE, ""
    for place, tag in enumerate(map(parse, tags)):
        if continues(before, tag):
            type_, first, _ = found.pop()
            found.append((type_, first, place + 1))
        elif tag[0] != OUTSIDE:
            found.append((tag[1], place, place + 1))
        before = tag
    return found


def types(tags: Iterable[str]) -> list[str]:
    """The types of entities among tags, by letter."""
    return sorted({parse(tag)[1] for tag in tags} - {""})


def in_order(tags: Iterable[str]) -> list[str]:
    """Distinct tags as a label list has them: O, then by type, B- first."""
    return sorted(set(tags), key=lambda tag: (tag != OUTSIDE, parse(tag)[1],
                                              _KINDS.find(tag[0])))
