"""Text files -> examples -> token ids -> tf.data.

    corpus = tfopt.data.read("train.tsv")
    wordpiece = tfopt.data.WordPiece.from_directory("checkpoint/")
    encoded = wordpiece.encode(corpus.texts, max_length=128)
    batches = tfopt.data.Batches(encoded, corpus.class_ids(corpus.label_list()))

Only `Batches` needs TensorFlow, which is imported when it is first asked for: a
server that tokenizes for LiteRT does without.
"""

from typing import Any

from tfopt.data.augment import Augmentation
from tfopt.data.corpus import (
    DEMO_DEV_FILE,
    DEMO_TRAIN_FILE,
    LABELS_FILE,
    Columns,
    Corpus,
    labels_text,
    read,
    read_labels,
)
from tfopt.data.unlabelled import Texts, join, read_texts
from tfopt.data.wordpiece import Encoded, WordPiece

__all__ = [
    "DEMO_DEV_FILE",
    "DEMO_TRAIN_FILE",
    "LABELS_FILE",
    "Augmentation",
    "Batches",
    "Columns",
    "Corpus",
    "Encoded",
    "Texts",
    "WordPiece",
    "join",
    "labels_text",
    "read",
    "read_labels",
    "read_texts",
]


def __getattr__(name: str) -> Any:
    if name == "Batches":
        from tfopt.data.batches import Batches

        return Batches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
