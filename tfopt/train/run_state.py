"""The state of a training run on disk, from which a killed run goes on.

Held are the weights, the optimizer, the random states of dropout, the step, and the
best weights so far. The order of the batches needs no state: it is a function of the
step (`data.batches.plan`). Of several workers the first alone writes; all read that.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np

from tfopt.backend import keras, tf
from tfopt.files import parse_json, read_arrays, to_json
from tfopt.train.callbacks import steps_done
from tfopt.train.distribute import workers
from tfopt.types import PathLike

_BEST_FILE = "best.npz"
_LATEST_FILE = "checkpoint"  # TensorFlow's, which names the state


class _Note(tf.train.experimental.PythonState):
    """A text that a checkpoint has beside its numbers.

    No variable: in a strategy's scope, where passes train, one would be shared by all
    workers, and text cannot be.
    """

    text: str | bytes = ""

    def serialize(self) -> str | bytes:
        """Gives the text to a checkpoint that is written."""
        return self.text

    def deserialize(self, string_value: bytes) -> None:
        """Takes it from one that is read."""
        self.text = string_value


class RunState:
    """The state of one run; in memory only where no directory is given.

    Args:
        model: compiled, with its optimizer built.
        directory: where the state is kept between two processes, or None; of several
            workers, one that all of them see.

    Attributes:
        best_value: best value on dev of the monitored metric so far, or None.
        best_epoch: its epoch, from 0, or -1.
        history: the figures of each finished epoch.
        finished: whether the run came to its end.
    """

    def __init__(self, model: keras.Model, directory: PathLike | None = None):
        self._model = model
        self._directory = None if directory is None else Path(directory)
        self._best_weights = None
        self.best_value: float | None = None
        self.best_epoch = -1
        self.history: list[dict[str, float]] = []
        self.finished = False
        self._manager = None
        self._strategy = model.distribute_strategy
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._note = _Note()
            checkpoint = tf.train.Checkpoint(
                model=model, optimizer=model.optimizer, note=self._note)
            checkpoint.save_counter  # noqa: B018  made here: all workers must make it
            try:
                self._manager = tf.train.CheckpointManager(
                    checkpoint, str(self._directory), max_to_keep=1)
            except (tf.errors.OpError, ValueError) as error:
                raise self._unreadable(error) from error

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return steps_done(self._model)

    def restore(self) -> bool:
        """Goes back to the last saved state, if there is one.

        Returns:
            Whether there was one.

        Raises:
            ValueError: it is of another model, or damaged; or workers see different
                ones.
        """
        if self._manager is None or self._directory is None:
            return False
        latest = self._manager.latest_checkpoint
        workers.check_same(
            self._strategy, str(latest and Path(latest).name),
            "All workers must see the same saved state: give a directory on a disk "
            "that they share.", str(latest))
        if not latest:
            if (self._directory / _LATEST_FILE).exists():  # TensorFlow but warns of it
                raise self._unreadable(f"{_LATEST_FILE} names no state")
            return False
        try:
            self._manager.checkpoint.restore(latest).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:  # another structure, or shape
            raise self._of_another(latest) from error
        except Exception as error:  # of damaged files: OpError, IndexError, and more
            raise self._unreadable(error) from error
        try:
            note = parse_json(self._note.text, "its note", finite=False)
            self.best_epoch = int(note["best_epoch"])
            # The first edition noted -inf where no epoch had counted.
            self.best_value = note["best_value"] if self.best_epoch >= 0 else None
            self.history = [{name: float(value) for name, value in epoch.items()}
                            for epoch in note["history"]]
            self.finished = note["finished"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unreadable(error) from error
        if self.best_epoch >= 0:  # found now, not after hours of training
            self._read_best()
        return True

    def save(self) -> None:
        """Saves the state, if there is a directory; whole or not at all."""
        if self._manager is None:
            return
        # The note travels inside the checkpoint, so that both are of one moment.
        self._note.text = to_json({
            "best_value": self.best_value, "best_epoch": self.best_epoch,
            # Of dev, a loss may be infinite while training goes on; JSON has no such.
            "history": [{name: value if math.isfinite(value) else str(value)
                         for name, value in epoch.items()} for epoch in self.history],
            "finished": self.finished})
        if workers.is_chief(self._strategy):
            self._manager.save(checkpoint_number=self.step)
            return
        # All must take part, since some variables are summed up to be saved.
        with tempfile.TemporaryDirectory() as place:
            self._manager.checkpoint.write(str(Path(place) / "state"))

    def keep_best(self, value: float, epoch: int, model: keras.Model) -> None:
        """Keeps the model's present weights as the best."""
        self.best_value, self.best_epoch = float(value), epoch
        weights = model.get_weights()
        if self._directory is None:
            self._best_weights = weights
            return
        if not workers.is_chief(self._strategy):
            return
        partial = self._directory / f"partial.{_BEST_FILE}"
        np.savez(partial, *weights)
        os.replace(partial, self._directory / _BEST_FILE)

    def load_best(self) -> None:
        """Puts the best weights back into the model, if any were kept."""
        if self.best_epoch < 0:
            return
        workers.wait(self._strategy)  # for the file of the first
        self._model.set_weights(
            self._best_weights if self._directory is None else self._read_best())
        workers.wait(self._strategy)  # before the first takes it away

    def _read_best(self) -> list[np.ndarray]:
        """The best weights, from their file."""
        file = Path(self._directory or "") / _BEST_FILE
        try:
            weights = [*read_arrays(file).values()]
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        if [w.shape for w in weights] != [tuple(w.shape) for w in self._model.weights]:
            raise self._of_another(file)
        return weights

    def _unreadable(self, why: object) -> ValueError:
        return ValueError(
            "The saved state of a training cannot be read; remove it, and training "
            f"starts anew. Received: {self._directory}: {' '.join(str(why).split())}")

    def _of_another(self, place: PathLike) -> ValueError:
        return ValueError("The saved state must be of the same model. Received: "
                          f"{place}")
