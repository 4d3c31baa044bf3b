"""Whether what a run was given goes together, found before any long work."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt import model, tasks
from tfopt.backend import keras
from tfopt.data.tokenizer import Tokenizer
from tfopt.export import calibrate, tflite
from tfopt.pipeline.export_options import Exports
from tfopt.sentence_files import pooling_of
from tfopt.types import PathLike, shown


def check_trained_for(task: tasks.Task, path: PathLike, what: str) -> None:
    """Checks that the model of a directory was trained for this very task.

    Where nothing says what it was trained for, a task without labels takes its word.

    Args:
        task: the task.
        path: the directory.
        what: named it, such as "--teacher_dir".

    Raises:
        ValueError: its task or its labels are others.
    """
    own = tasks.read(model.directory(path), model.published_labels(path))
    if (own and own.unfitted) != task.unfitted and (own is not None or task.labels):
        labels = f" of the labels {shown(list(task.labels))}" if task.labels else ""
        has = ("no labels" if own is None else
               f"the task {own.name()!r} of the labels {shown(list(own.labels))}")
        raise ValueError(f"{what} must be trained for the task {task.name()!r}"
                         f"{labels}, in the train file's order. Received: {path} with "
                         f"{has}")


def check_pairs(keras_model: keras.Model, column: str | None) -> None:
    """Checks that a model can tell the second texts of pairs from the first.

    Args:
        keras_model: an encoder of tfopt's; one without segments reads pairs, too.
        column: of the second texts; None for none.

    Raises:
        ValueError: there is one, and one segment alone.
    """
    if column and model.config_of(keras_model).type_vocab_size == 1:
        raise ValueError(
            "Pairs of texts need a model of two segments, or of none. Received: "
            f"--text_pair_column={column}, a model of type_vocab_size=1")


def check_reading(path: PathLike, tokenizer: Tokenizer) -> None:
    """Checks that texts are read as the files of sentence-transformers say.

    Raises:
        ValueError: they are to be lower case, and the tokenizer does not make them so.
    """
    pooling = pooling_of(path)
    if pooling is not None and pooling.lowercase and not tokenizer.lowercase:
        raise ValueError("A tokenizer must make texts lower case where "
                         "sentence_bert_config.json has do_lower_case. Received: "
                         f"{path} with one that keeps letters as they are")


def check_length(keras_model: keras.Model, max_length: int, multiple: int,
                 export_length: int | None = None, whose: str = "model") -> None:
    """Checks that a model has a position for every token.

    Args:
        keras_model: an encoder of tfopt's.
        max_length: tokens to which texts are cut.
        multiple: of tokens, to which batches are padded.
        export_length: tokens of the exported input; None where it is open.
        whose: in the message: "model" or "teacher".

    Raises:
        ValueError: the length, padded, or the exported one is above its positions.
    """
    positions = model.config_of(keras_model).max_positions
    if export_length is not None and export_length > positions:
        raise ValueError(f"--export_length must not be above the {whose}'s {positions} "
                         f"positions. Received: --export_length={export_length}")
    if -(-max_length // multiple) * multiple > positions:
        raise ValueError(
            "--max_length, rounded up to --pad_multiple, must not be above the "
            f"{whose}'s {positions} positions. Received: --max_length={max_length}, "
            f"--pad_multiple={multiple}")


def check_vocabulary(keras_model: keras.Model, tokenizer: Tokenizer) -> None:
    """Checks that a model has a row for every id of a tokenizer.

    Raises:
        ValueError: it has fewer.
    """
    rows = model.config_of(keras_model).vocab_size
    if tokenizer.vocab_size > rows:
        raise ValueError(
            f"A tokenizer must not have more entries than the model's embedding, {rows}"
            f". Received: {tokenizer.vocab_size} entries, of which the last is "
            f"{shown(tokenizer.words[-1])}")


def check_exports(schemes: Sequence[str], texts: int, exports: Exports) -> None:
    """Checks that every export can be made, and has texts for static ranges.

    Args:
        schemes: of the exports.
        texts: that there are to calibrate by.
        exports: says how many were asked for.

    Raises:
        ValueError: there are too few, or old runtimes cannot have one.
    """
    for scheme in schemes if exports.for_old_runtimes else ():
        tflite.check_for_old_runtimes(scheme)
    static = [scheme for scheme in schemes if tflite.needs_calibration(scheme)]
    if static and texts < calibrate.FEWEST:
        raise ValueError(
            f"An export with static ranges, {static[0]}, needs at least "
            f"{calibrate.FEWEST} texts to calibrate by. Received: --calibration_texts="
            f"{exports.calibration_texts}, of which the train file has {texts}")
