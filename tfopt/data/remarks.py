"""Examples of several files -> sentences on what a person should know of them.

None of it is an error: public data sets have all of it. Said, it explains a figure.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

from tfopt.data.corpus import Corpus
from tfopt.data.tokenizer_json import Encoded
from tfopt.types import few


def on_examples(corpora: Mapping[str, Corpus]) -> list[str]:
    """What is odd about the examples themselves.

    Args:
        corpora: name of a split -> its examples; train among them.

    Returns:
        Sentences on labels that a reader takes for one, on texts that train has too,
        and on empty ones.
    """
    notes = []
    alike = collections.defaultdict(list)
    for label in corpora["train"].label_list():
        alike[" ".join(label.split()).casefold()].append(label)
    for labels in alike.values():
        if len(labels) > 1:
            notes.append("Labels that differ in letters' case or spaces alone are "
                         f"different classes: {few(map(repr, labels))}.")
    if corpora["train"].labels and all(
            isinstance(labels, tuple) and len(labels) < 2
            for labels in corpora["train"].labels):
        notes.append("No example of train has several labels: is --label_separator "
                     "what stands between them?")
    known = set(_texts(corpora["train"]))
    for name, corpus in corpora.items():
        texts = _texts(corpus)
        again = sum(text in known for text in texts)
        if again and name != "train":
            notes.append(f"{again} of {name}'s {len(texts)} texts are in train, too: "
                         f"figures on {name} are too good for new texts.")
        empty = sum(not any(part.strip() for part in text) for text in texts)
        if empty:
            notes.append(f"{empty} of {name}'s {len(texts)} texts are empty.")
    return notes


def on_unknown_labels(name: str, unknown: Sequence[Sequence[str]]) -> list[str]:
    """How many examples have labels that train lacks, and which.

    Args:
        name: of a split.
        unknown: such labels of each of its examples (`Task.unknown_labels`).

    Returns:
        A sentence, if there are such examples.
    """
    count = sum(map(bool, unknown))
    labels = dict.fromkeys(label for labels in unknown for label in labels)
    return [f"{count} of {name}'s {len(unknown)} examples have labels that train lacks "
            f"and no answer can be: they count as wrong. {few(map(repr, labels))}."
            ] if count else []


def on_lengths(encoded: Mapping[str, Encoded], max_length: int) -> list[str]:
    """Which texts were cut.

    Args:
        encoded: name of a split -> its token ids.
        max_length: tokens to which they were cut.

    Returns:
        A sentence for each split with such texts.
    """
    return [f"{part.truncated} of {name}'s {len(part.ids)} texts are cut to "
            f"{max_length} tokens (--max_length)."
            for name, part in encoded.items() if part.truncated]


def _texts(corpus: Corpus) -> Sequence[tuple[str, ...]]:
    parts = [corpus.texts, *([] if corpus.pairs is None else [corpus.pairs])]
    return list(zip(*parts, strict=True))
