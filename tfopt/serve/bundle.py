"""A directory a model ships in -> answers to texts, without TensorFlow.

    bundle = Bundle.open("runs/a")
    bundle.predict(["where is my parcel?", "so bad"])
    # [{"label": "track order", "score": 0.98, "scores": {...}}, ...]

In it are `model.tflite`, the tokenizer's files, `labels.txt` where there are labels,
`reference.json` where one was taken, and `bundle.json`, which says what they are for
(`manifest`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt import tasks
from tfopt.data import corpus
from tfopt.data.tokenizer import FILES, Encoded, Tokenizer, from_directory
from tfopt.export.interpreter import CutOnce, Interpreter
from tfopt.files import write_whole
from tfopt.serve import manifest
from tfopt.serve.reference import Reference
from tfopt.tasks import Task
from tfopt.types import PathLike, check_lists


class Bundle:
    """A model with all that it takes to answer; `open` and `write` make one.

    Any number of threads may ask it at once.

    Args:
        interpreter: computes.
        task: what outputs mean.
        tokenizer: reads texts.
        max_length: tokens to which texts are cut.
        fields: what `bundle.json` says.

    Raises:
        ValueError: the model gives other outputs than the task has.
    """

    def __init__(self, interpreter: Interpreter, *, task: Task, tokenizer: Tokenizer,
                 max_length: int, fields: Mapping[str, Any]):
        task = task.giving(interpreter.outputs)
        if interpreter.outputs != task.outputs:
            raise ValueError(
                f"The model of a bundle must give the {task.outputs} outputs of its "
                f"task, {task.name()}. Received: {interpreter.outputs} outputs")
        if interpreter.per_token != task.per_token:
            raise ValueError(
                f"The model of a bundle must give an output "
                f"{'a token' if task.per_token else 'a text'}, as its task, "
                f"{task.name()}, has it. Received: one for each "
                f"{'token' if interpreter.per_token else 'text'}")
        self.task, self.tokenizer, self.fields = task, tokenizer, dict(fields)
        self.max_length = min(max_length, interpreter.fixed_length or max_length)
        self._interpreter, self._cut = interpreter, CutOnce()

    @classmethod
    def open(cls, directory: PathLike, num_threads: int | None = None,
             copies: int | None = None, beside: Sequence[Bundle] = (),
             private: bool = False) -> Bundle:
        """Opens a directory that `write` has completed, or one of the first edition.

        Args:
            directory: of the bundle.
            num_threads: of a request; None tries what answers fastest here.
            copies: of the model at most, each with weights of its own, to compute that
                many requests at once; None for as many as have a core for each thread.
                There is one until several threads ask.
            beside: open bundles; the tokenizer of one is taken, which saves 16 MB,
                where its files are the same.
            private: as of `Interpreter`.

        Returns:
            The bundle.

        Raises:
            ValueError: a file is missing, damaged or of a newer format; says which.
        """
        directory = Path(directory)
        fields = manifest.read(directory)
        tokenizer = next((other.tokenizer for other in beside
                          if _tokenizer_files(other.fields) == _tokenizer_files(fields)
                          != {}), None) or from_directory(directory)
        try:
            task = tasks.from_fields(fields["task"])
            return cls(
                Interpreter(directory / manifest.MODEL_FILE, num_threads=num_threads,
                            copies=copies, pad_id=tokenizer.pad_id,
                            known=manifest.MODEL_FILE in fields["files"],
                            private=private),
                task=task, tokenizer=tokenizer, max_length=fields["max_length"],
                fields=fields)
        except ValueError as error:
            raise ValueError(f"{error} (the bundle {directory})") from error

    @classmethod
    def write(cls, directory: PathLike, *, task: Task, tokenizer: Tokenizer,
              max_length: int, scheme: str, model: bytes | None = None,
              figures: Mapping[str, float] | None = None,
              source: Mapping[str, Any] | None = None,
              reference: Reference | None = None) -> None:
        """Makes a directory with a model into a bundle.

        `bundle.json` comes last: one of before tells that files are not its own.

        Args:
            directory: made if missing; files of a bundle that was there are replaced.
            task: what the model was trained for.
            tokenizer: of the ids that the model reads.
            max_length: tokens to which texts are cut.
            scheme: how the model was exported.
            model: contents of `model.tflite`; None takes the file that is there.
            figures: what was measured, name -> value.
            source: what the model was made of, JSON values.
            reference: what its answers look like on dev.

        Raises:
            ValueError: there is no model.
            OSError: the disk is full or not writable.
        """
        directory = Path(directory)
        path = directory / manifest.MODEL_FILE
        if model is None and not path.is_file():
            raise ValueError(f"A bundle needs a model. Received: no {path}")
        if model is not None:
            write_whole(path, model)
        tokenizer.save(directory)
        if task.labels:
            write_whole(directory / corpus.LABELS_FILE, corpus.labels_text(task.labels))
        else:  # of a task that was here before
            (directory / corpus.LABELS_FILE).unlink(missing_ok=True)
        if reference is not None:
            reference.write(directory)
        else:  # of a model that was here before
            (directory / manifest.REFERENCE_FILE).unlink(missing_ok=True)
        manifest.write(directory, {
            "task": task.to_fields(), "max_length": max_length, "scheme": scheme,
            "source": dict(source or {})}, figures or {})

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None
                ) -> list[dict[str, Any]]:
        """Answers texts, or pairs of texts.

        Args:
            texts: N texts.
            pairs: N second texts, or None.

        Returns:
            The task's answer to each: of a classification its label, score, and the
            scores of all labels; of an embedding the vector of a text, or of a pair the
            cosine as its score.

        Raises:
            ValueError: what should be lists of texts is not, texts and pairs differ in
                number, or there are pairs for a task whose answers name places in a
                text.
        """
        if pairs is not None and self.task.apart:
            return self.task.decode_pairs(*self._apart(texts, pairs))
        encoded = self.encode(texts, pairs)
        return (self.task.decode(self._outputs(encoded), encoded) if encoded.ids
                else [])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of N texts <float32>[N, D].

        Each text is computed at its own length. The vectors have length 1 where the
        task says so, as most models of sentences do: a product of two is their cosine.

        Raises:
            ValueError: the bundle is of another task, or as `predict`.
        """
        return self.task.vectors(self.outputs(texts))

    def outputs(self, texts: Sequence[str], pairs: Sequence[str] | None = None
                ) -> Any:
        """What the model gives for N texts, or pairs.

        Returns:
            <float32>[N, outputs]; of a task of tokens N times [T, outputs].

        Raises:
            ValueError: as `predict`.
        """
        encoded = self.encode(texts, pairs)
        return (self._outputs(encoded) if encoded.ids
                else np.zeros([0, self.task.outputs], np.float32))

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None
               ) -> Encoded:
        """What the model reads of N texts, or pairs.

        Raises:
            ValueError: as `predict`.
        """
        encoded = self.tokenizer.encode(texts, pairs, max_length=self.max_length,
                                        places=self.task.per_token)
        self._cut.say(encoded.truncated, self.max_length)
        return encoded

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """What the model gives for one text that is encoded.

        Args:
            ids: of its tokens, special ones included.
            first_length: how many are of the first of a pair; None for all.

        Returns:
            <float32>[outputs]; [T, outputs] of a task of tokens.

        Raises:
            ValueError: the model has no such ids, or not as many positions.
        """
        return self._interpreter.run(ids, first_length)

    def warm(self) -> None:
        """Makes all copies, and has each answer a text.

        Raises:
            ValueError: the model does not answer.
        """
        self._interpreter.warm(self.encode(["a"]).ids[0])

    def _apart(self, texts: Sequence[str], pairs: Sequence[str]
               ) -> tuple[np.ndarray, np.ndarray]:
        """What the model gives for the texts of pairs, each read by itself."""
        check_lists(texts=texts, pairs=pairs)
        if len(texts) != len(pairs):
            raise ValueError("Texts and pairs must be equally many. Received: "
                             f"{len(texts)} texts, {len(pairs)} pairs")
        return self.outputs(texts), self.outputs(pairs)

    def _outputs(self, encoded: Encoded) -> Any:
        return self._interpreter.logits(encoded.ids, encoded.first_lengths)


def _tokenizer_files(fields: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the files that a bundle's tokenizer is read from."""
    return {name: digest for name, digest in fields["files"].items() if name in FILES}
