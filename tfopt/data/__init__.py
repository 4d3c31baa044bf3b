"""Text files -> examples -> token ids -> tf.data.

    corpus = tfopt.data.read("train.tsv")
    tokenizer = tfopt.data.tokenizer_from("checkpoint/")
    encoded = tokenizer.encode(corpus.texts, max_length=128)
    batches = tfopt.data.Batches(encoded, corpus.class_ids(corpus.label_list()))

Only `Batches` and `PairedBatches` need TensorFlow, which is imported when they are
first asked for: a server that tokenizes for LiteRT does without.
"""

from typing import Any

from tfopt.data.augment import Augmentation, label_words
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
from tfopt.data.tokenizer import Encoded, Tokenizer, WordPiece
from tfopt.data.tokenizer import from_directory as tokenizer_from
from tfopt.data.unlabelled import Texts, encode, join, read_each, read_texts

__all__ = [
    "DEMO_DEV_FILE",
    "DEMO_TRAIN_FILE",
    "LABELS_FILE",
    "Augmentation",
    "Batches",
    "Columns",
    "Corpus",
    "Encoded",
    "PairedBatches",
    "Texts",
    "Tokenizer",
    "WordPiece",
    "encode",
    "join",
    "label_words",
    "labels_text",
    "read",
    "read_each",
    "read_labels",
    "read_texts",
    "tokenizer_from",
]


def __getattr__(name: str) -> Any:
    if name == "Batches":
        from tfopt.data.batches import Batches

        return Batches
    if name == "PairedBatches":
        from tfopt.data.paired_batches import PairedBatches

        return PairedBatches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
