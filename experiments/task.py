"""A text task from flags: its files, labels and batches."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags, logging

from tfopt import data, model, train
from tfopt.export import calibrate
from tfopt.files import write_whole
from tfopt.measure import quality, runners

FLAGS = flags.FLAGS
_SMOKE_EXAMPLES = {"train": 64, "dev": 32, "test": 32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One file's examples, encoded.

    Attributes:
        encoded: token ids.
        class_ids: class numbers.
    """

    encoded: data.Encoded
    class_ids: list[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a model is trained on and judged by.

    Attributes:
        wordpiece: the checkpoint's tokenizer.
        labels: label words by class number.
        train: batches to learn from.
        choose: batches that choose the best epoch; None keeps the last.
        guard: the part held out of train, or dev where none is; budgets are held on it.
        calibration: texts to learn from as inputs of a model, for ranges.
        report: split name -> the examples to report on.
        notes: what a reader of the report must know.
    """

    wordpiece: data.WordPiece
    labels: list[str]
    train: data.Batches
    choose: data.Batches | None
    guard: Split
    calibration: list[calibrate.Example]
    report: dict[str, Split]
    notes: list[str]


def columns() -> data.Columns:
    """The columns that the flags name."""
    return data.Columns(text=FLAGS.text_column, pair=FLAGS.text_pair_column,
                        label=FLAGS.label_column)


def settings() -> train.Settings:
    """The training settings that the flags name."""
    return train.Settings(
        epochs=1 if FLAGS.smoke else FLAGS.epochs, learning_rate=FLAGS.learning_rate,
        weight_decay=FLAGS.weight_decay, clip_norm=FLAGS.clip_norm or None,
        patience=FLAGS.patience, seed=FLAGS.seed,
        jit_compile=FLAGS.jit_compile, mixed_precision=FLAGS.mixed_precision)


def load() -> Task:
    """Reads the files that the flags name.

    Raises:
        ValueError: a file is missing or wrong; names file and line.
    """
    notes = []
    if FLAGS.train_file is None:
        if FLAGS.dev_file is not None:
            raise ValueError("--dev_file needs --train_file beside it. Received: "
                             f"--dev_file={FLAGS.dev_file}")
        corpora = {"train": data.read(data.DEMO_TRAIN_FILE),
                   "dev": data.read(data.DEMO_DEV_FILE)}
        notes.append("Data: the embedded support intents.")
    else:
        corpora = {"train": data.read(FLAGS.train_file, columns())}
        if FLAGS.dev_file is not None:
            corpora["dev"] = data.read(FLAGS.dev_file, columns())
        else:
            corpora["train"], corpora["dev"] = corpora["train"].split(0.1, FLAGS.seed)
            notes.append("dev is a tenth of the train file, held out by chance.")
    if FLAGS.test_file is not None:
        corpora["test"] = data.read(FLAGS.test_file, columns())
    labels = _labels(corpora["train"])
    for corpus in corpora.values():
        corpus.class_ids(labels)  # a label that train lacks is found before any work
    if FLAGS.smoke:
        corpora = {name: corpus.take(range(min(len(corpus), _SMOKE_EXAMPLES[name])))
                   for name, corpus in corpora.items()}
        notes.append("A smoke run: the figures mean nothing.")
    if FLAGS.holdout_fraction:
        corpora["train"], corpora["holdout"] = corpora["train"].split(
            FLAGS.holdout_fraction, FLAGS.seed)
        notes.append(f"The epoch was chosen on {len(corpora['holdout'])} examples held "
                     "out of train.")
    elif FLAGS.keep_epoch == "best":
        notes.append("The best epoch was chosen on dev: with several epochs, accuracy "
                     "on dev is a little optimistic (--holdout_fraction or "
                     "--keep_epoch=last avoid it).")

    wordpiece = data.WordPiece.from_directory(model.directory(FLAGS.model_dir))
    splits = {name: encode(corpus, wordpiece, labels)
              for name, corpus in corpora.items()}
    pad = {"pad_to": FLAGS.max_length if FLAGS.pad_to_max_length else None,
           "pad_multiple": FLAGS.pad_multiple}
    choose = splits.pop("holdout", splits["dev"])
    learn = splits.pop("train")
    return Task(
        wordpiece=wordpiece, labels=labels, report=splits, notes=notes,
        train=data.Batches(learn.encoded, learn.class_ids, shuffle_seed=FLAGS.seed,
                           batch_size=FLAGS.batch_size,
                           sort_window=FLAGS.sort_window, **pad,
                           drop_remainder=FLAGS.jit_compile or FLAGS.pad_to_max_length),
        guard=choose,
        calibration=_calibration(learn.encoded),
        choose=None if FLAGS.keep_epoch == "last" else data.Batches(
            choose.encoded, choose.class_ids, batch_size=FLAGS.batch_size, **pad))


def _calibration(encoded: data.Encoded) -> list[calibrate.Example]:
    """Some of the texts to learn from, drawn by the seed."""
    count = min(FLAGS.calibration_texts, len(encoded.ids))
    rows = np.random.default_rng(FLAGS.seed).choice(len(encoded.ids), count,
                                                    replace=False)
    return calibrate.examples_of([encoded.ids[row] for row in rows],
                                 [encoded.first_lengths[row] for row in rows])


def logits_of(artifact, part: Split) -> np.ndarray:
    """Logits <float32>[N, C] of a split, by a Keras model or a `.tflite`'s bytes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        if isinstance(artifact, bytes):
            path /= "model.tflite"
            path.write_bytes(artifact)
        else:
            model.save(artifact, path)
        runner = runners.open_artifact(path, FLAGS.num_threads)
        return runner.logits(part.encoded.ids, part.encoded.first_lengths)


def judge_on(part: Split) -> Callable[[bytes], float]:
    """What tells the accuracy of a `.tflite`'s bytes on a split."""
    return lambda contents: quality.measure(
        logits_of(contents, part), part.class_ids)["accuracy"]


def encode(corpus: data.Corpus, wordpiece: data.WordPiece, labels: list[str]) -> Split:
    """Encodes a corpus, and says how many texts were cut."""
    encoded = wordpiece.encode(corpus.texts, corpus.pairs, max_length=FLAGS.max_length)
    if encoded.truncated:
        logging.warning("%s: %d of %d texts are cut to %d tokens", corpus.path,
                        encoded.truncated, len(corpus), FLAGS.max_length)
    return Split(encoded=encoded, class_ids=corpus.class_ids(labels))


def check_length(keras_model) -> None:
    """Checks that the model has a position for every token.

    Raises:
        ValueError: --max_length, padded, is above its positions.
    """
    positions = model.config_of(keras_model).max_positions
    multiple = 1 if FLAGS.pad_to_max_length else FLAGS.pad_multiple
    if -(-FLAGS.max_length // multiple) * multiple > positions:
        raise ValueError(
            "--max_length, rounded up to --pad_multiple, must not be above the model's "
            f"{positions} positions. Received: --max_length={FLAGS.max_length}, "
            f"--pad_multiple={multiple}")


def finetune(task: Task, **places):
    """Fine-tunes the checkpoint that the flags name.

    Args:
        task: what to learn.
        **places: `state_dir` and `log_dir` of `train.fit`.

    Returns:
        The model, and the figures of each epoch.
    """
    with train.strategy.make(FLAGS.strategy).scope():
        keras_model = model.load(FLAGS.model_dir, num_labels=len(task.labels),
                                 seed=FLAGS.seed)
    check_length(keras_model)
    return keras_model, train.fit(keras_model, task.train, task.choose, settings(),
                                  **places)


def save_text_side(task: Task, directory: Path) -> None:
    """Writes vocabulary, tokenizer settings and labels beside a model."""
    task.wordpiece.save(directory)
    write_whole(directory / data.LABELS_FILE, data.labels_text(task.labels))


def _labels(corpus: data.Corpus) -> list[str]:
    """The checkpoint's own label order where it fits the data, else a sorted one."""
    found = corpus.label_list()
    own = model.published_labels(FLAGS.model_dir)
    return own if own and set(found) <= set(own) else found
