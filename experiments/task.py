"""A text task from flags: its files, labels and batches."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import flags as shared
import numpy as np
from absl import flags, logging

from tfopt import compress, data, model, train
from tfopt import tasks as kinds
from tfopt.backend import keras
from tfopt.export import calibrate
from tfopt.files import write_whole
from tfopt.measure import runners

FLAGS = flags.FLAGS
_SMOKE_EXAMPLES = {"train": 64, "dev": 32, "test": 32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One file's examples, encoded.

    Attributes:
        encoded: token ids.
        targets: what the model is to give for each.
    """

    encoded: data.Encoded
    targets: list

    @property
    def lengths(self) -> list[int]:
        """Token counts of the texts."""
        return [len(ids) for ids in self.encoded.ids]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a model is trained on and judged by.

    Attributes:
        wordpiece: the checkpoint's tokenizer.
        kind: what is to be learned.
        train: batches to learn from.
        transfer_set: batches to learn from where there is a teacher: those of train,
            and texts without labels.
        choose: batches that choose the best epoch; None keeps the last.
        guard: the part held out of train, or dev where none is; budgets are held on it.
        calibration: texts to learn from as inputs of a model, for ranges.
        report: split name -> the examples to report on.
        notes: what a reader of the report must know.
    """

    wordpiece: data.WordPiece
    kind: kinds.Task
    train: data.Batches
    transfer_set: data.Batches
    choose: data.Batches | None
    guard: Split
    calibration: list[calibrate.Example]
    report: dict[str, Split]
    notes: list[str]


def columns(numbers: bool = False) -> data.Columns:
    """The columns that the flags name; their labels may be numbers."""
    return data.Columns(text=FLAGS.text_column, pair=FLAGS.text_pair_column,
                        label=FLAGS.label_column, numbers=numbers)


def settings() -> train.Settings:
    """The training settings that the flags name."""
    return train.Settings(
        epochs=1 if FLAGS.smoke else FLAGS.epochs,
        learning_rate=shared.placement().learning_rate(FLAGS.learning_rate),
        weight_decay=FLAGS.weight_decay, clip_norm=FLAGS.clip_norm or None,
        patience=FLAGS.patience, seed=FLAGS.seed,
        jit_compile=FLAGS.jit_compile, mixed_precision=FLAGS.mixed_precision,
        steps_per_execution=FLAGS.steps_per_execution)


def load(distils: bool = False, wordpiece: data.WordPiece | None = None) -> Task:
    """Reads the files that the flags name.

    Args:
        distils: whether the script has the flags of distillation, which may name texts
            without labels.
        wordpiece: tokenizer to read by; None for the checkpoint's.

    Raises:
        ValueError: a file is missing or wrong; names file and line.
    """
    # First: workers must be there before TensorFlow computes anything.
    placed = shared.placement()
    batch_size = placed.batch_size(FLAGS.batch_size)
    named = columns(kinds.named(FLAGS.task).number_labels)
    notes = []
    if FLAGS.train_file is None:
        if FLAGS.dev_file is not None:
            raise ValueError("--dev_file needs --train_file beside it. Received: "
                             f"--dev_file={FLAGS.dev_file}")
        corpora = {"train": data.read(data.DEMO_TRAIN_FILE),
                   "dev": data.read(data.DEMO_DEV_FILE)}
        notes.append("Data: the embedded support intents.")
    else:
        corpora = {"train": data.read(FLAGS.train_file, named)}
        if FLAGS.dev_file is not None:
            corpora["dev"] = data.read(FLAGS.dev_file, named)
        else:
            corpora["train"], corpora["dev"] = corpora["train"].split(0.1, FLAGS.seed)
            notes.append("dev is a tenth of the train file, held out by chance.")
    if FLAGS.test_file is not None:
        corpora["test"] = data.read(FLAGS.test_file, named)
    kind = kinds.named(FLAGS.task).from_corpus(
        corpora["train"], model.published_labels(FLAGS.model_dir))
    for corpus in corpora.values():
        kind.targets(corpus)  # a label that train lacks is found before any work
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
        notes.append("The best epoch was chosen on dev: with several epochs, "
                     f"{kind.monitor[0]} on dev is a little optimistic "
                     "(--holdout_fraction or --keep_epoch=last avoid it).")

    wordpiece = wordpiece or data.tokenizer_from(
        model.directory(FLAGS.model_dir))
    if distils and FLAGS.teacher_dir is not None:
        _check_teacher(Path(FLAGS.teacher_dir), kind, wordpiece)
    splits = {name: encode(corpus, wordpiece, kind)
              for name, corpus in corpora.items()}
    # A TPU knows fixed shapes alone, and XLA is to compile few.
    fixed = FLAGS.pad_to_max_length or placed.name == "tpu"
    pad = {"pad_to": FLAGS.max_length if fixed else None,
           "pad_multiple": pad_multiple()}
    choose = splits.pop("holdout", splits["dev"])
    learn = splits.pop("train")
    more = _unlabelled(corpora["train"], wordpiece, notes) if distils else None

    def learning(split: Split) -> data.Batches:
        return data.Batches(
            split.encoded, split.targets, shuffle_seed=FLAGS.seed,
            batch_size=batch_size, sort_window=FLAGS.sort_window, **pad)

    train_batches = learning(learn)
    return Task(
        wordpiece=wordpiece, kind=kind, report=splits, notes=notes,
        train=train_batches,
        transfer_set=train_batches if more is None else learning(Split(
            encoded=data.join([learn.encoded, more]),
            targets=[*learn.targets, *[kind.no_target] * len(more.ids)])),
        guard=choose,
        calibration=_calibration(learn.encoded),
        choose=None if FLAGS.keep_epoch == "last" else data.Batches(
            choose.encoded, choose.targets, batch_size=batch_size, **pad))


def with_teacher(context: compress.Context, task: Task,
                 settings: train.Distillation | None, state: Path,
                 default: keras.Model | None = None) -> compress.Context:
    """Adds the teacher, if something is to be learned from one, and its texts.

    Args:
        context: of training without one.
        task: what it was trained for.
        settings: as `distillation` gives them.
        state: where its logits are kept, if they are.
        default: the teacher, where the flags do not name one.

    Raises:
        ValueError: there is no teacher.
    """
    if settings is None:
        return context
    if FLAGS.teacher_dir is None and default is None:
        raise ValueError("--teacher_dir must name the teacher of a fine-tuning. "
                         "Received: none")
    return dataclasses.replace(
        context, transfer_set=task.transfer_set, distillation=settings,
        teacher=default if FLAGS.teacher_dir is None else model.load(FLAGS.teacher_dir),
        teacher_logits_file=state / "teacher_logits.npz"
        if FLAGS.cache_teacher_logits else None)


def distillation(recipes: train.Distillation | None = None
                 ) -> train.Distillation | None:
    """What is to be learned from a teacher; None without one.

    Args:
        recipes: what a recipe says; flags that are given replace fields of it.

    Raises:
        ValueError: a flag that needs a teacher is given without one, or is wrong.
    """
    given = {name: getattr(FLAGS, f"distil_{name}") for name in (
        "soft_weight", "hard_weight", "hidden_weight", "relations_weight",
        "temperature", "layers")}
    given = {name: value for name, value in given.items() if value is not None}
    if recipes is None and not given and FLAGS.teacher_dir is None:
        for name in ("unlabelled_file", "augment", "cache_teacher_logits"):
            if getattr(FLAGS, name):
                raise ValueError(
                    f"--{name} needs a teacher: give --teacher_dir, a --distil_... "
                    "flag or a recipe that distils. Received: "
                    f"--{name}={getattr(FLAGS, name)}")
        return None
    found = dataclasses.replace(recipes or train.Distillation(), **given)
    if FLAGS.cache_teacher_logits and found.uses_layers:
        raise ValueError(
            "--cache_teacher_logits keeps logits alone; hidden states and relations "
            "need the teacher in every step. Received: "
            f"hidden_weight={found.hidden_weight}, "
            f"relations_weight={found.relations_weight}")
    return found


def check_trained_for(kind: kinds.Task, path: Path, flag: str) -> None:
    """Checks that the model of a directory was trained for this very task.

    Where nothing says what it was trained for, a task without labels takes its word.

    Args:
        kind: the task.
        path: the directory.
        flag: that named it.

    Raises:
        ValueError: its task or its labels are others.
    """
    own = kinds.read(path, model.published_labels(path))
    if own != kind and (own is not None or kind.labels):
        labels = f" of the labels {list(kind.labels)}" if kind.labels else ""
        has = ("no labels" if own is None else
               f"the task {own.name()!r} of the labels {list(own.labels)}")
        raise ValueError(f"--{flag} must be trained for the task {kind.name()!r}"
                         f"{labels}, in the train file's order. Received: {path} with "
                         f"{has}")


def _check_teacher(path: Path, kind: kinds.Task, wordpiece: data.WordPiece) -> None:
    """Checks, before any work, that a teacher was trained for this very task.

    Raises:
        ValueError: its labels or its vocabulary are others.
    """
    check_trained_for(kind, path, "teacher_dir")
    words = data.tokenizer_from(path).words
    if words != wordpiece.words:
        raise ValueError("--teacher_dir must have the vocabulary of the model, whose "
                         f"token ids it reads: {wordpiece.vocab_size} entries. "
                         f"Received: {path} with other {len(words)}")


def _unlabelled(corpus: data.Corpus, wordpiece, notes) -> data.Encoded | None:
    """The texts without labels that the flags ask for, encoded; None for none."""
    parts = []
    if FLAGS.unlabelled_file is not None:
        found = data.read_texts(FLAGS.unlabelled_file, columns())
        if FLAGS.smoke:
            found = data.Texts(
                texts=found.texts[:_SMOKE_EXAMPLES["train"]],
                pairs=found.pairs and found.pairs[:_SMOKE_EXAMPLES["train"]])
        parts.append(found)
        notes.append(f"{len(found)} texts without labels, judged by the teacher.")
    if FLAGS.augment:
        parts.append(data.Augmentation(seed=FLAGS.seed)(
            data.Texts(texts=corpus.texts, pairs=corpus.pairs), FLAGS.augment))
        notes.append(f"{len(parts[-1])} changed copies of train's texts, judged by the "
                     "teacher.")
    if not parts:
        return None
    return data.join([wordpiece.encode(part.texts, part.pairs,
                                       max_length=FLAGS.max_length) for part in parts])


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


def judge_on(kind: kinds.Task, part: Split) -> Callable[[bytes], float]:
    """What tells the monitored value of a `.tflite`'s bytes on a split."""
    return lambda contents: kind.value(kind.quality(
        logits_of(contents, part), part.targets))


def encode(corpus: data.Corpus, wordpiece: data.WordPiece, kind: kinds.Task) -> Split:
    """Encodes a corpus, and says how many texts were cut."""
    encoded = wordpiece.encode(corpus.texts, corpus.pairs, max_length=FLAGS.max_length)
    if encoded.truncated:
        logging.warning("%s: %d of %d texts are cut to %d tokens", corpus.path,
                        encoded.truncated, len(corpus), FLAGS.max_length)
    return Split(encoded=encoded, targets=kind.targets(corpus))


def check_length(keras_model) -> None:
    """Checks that the model has a position for every token.

    Raises:
        ValueError: --max_length, padded, is above its positions.
    """
    positions = model.config_of(keras_model).max_positions
    multiple = 1 if FLAGS.pad_to_max_length else pad_multiple()
    if -(-FLAGS.max_length // multiple) * multiple > positions:
        raise ValueError(
            "--max_length, rounded up to --pad_multiple, must not be above the model's "
            f"{positions} positions. Received: --max_length={FLAGS.max_length}, "
            f"--pad_multiple={multiple}")


def pad_multiple() -> int:
    """Of tokens, to which batches are padded: few lengths where XLA compiles each."""
    return FLAGS.pad_multiple or (32 if settings().on_this_machine().jit_compile else 8)


def finetune(task: Task, context: compress.Context | None = None, **places):
    """Fine-tunes the checkpoint that the flags name.

    Args:
        task: what to learn.
        context: with a teacher; None learns from the labels alone.
        **places: `state_dir` and `log_dir` of `train.fit`.

    Returns:
        The model, and the figures of each epoch.
    """
    with shared.placement().strategy.scope():
        keras_model = model.load(FLAGS.model_dir, num_labels=task.kind.outputs,
                                 seed=FLAGS.seed)
    check_length(keras_model)
    context = context or compress.Context(task=task.kind, train=task.train)
    batches, goal = context.training_inputs(keras_model)
    return keras_model, train.fit(keras_model, batches, task.choose, settings(),
                                  goal=goal, **places)


def save_text_side(task: Task, directory: Path) -> None:
    """Writes tokenizer, task and labels beside a model."""
    task.wordpiece.save(directory)
    kinds.save(task.kind, directory)
    if task.kind.labels:
        write_whole(directory / data.LABELS_FILE, data.labels_text(task.kind.labels))
