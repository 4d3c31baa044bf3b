"""tfopt's side of training_vs_pytorch.py: `tfopt.train.fit`, one segment a go.

Timed is what a user runs, whole: `Model.fit` with the callbacks that `fit` adds and the
`tf.data` pipeline of `tfopt.data.Batches` (the reference has its tensors ready). A
Keras callback holds training at the end of each segment, until the next go.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import protocol

from tfopt import data, model, train
from tfopt.backend import keras
from tfopt.types import INPUT_NAMES


class FixedBatches(data.Batches):
    """The batches of a file, in its order, in every epoch.

    Args:
        path: an .npz with input_ids_0, label_0, ...
    """

    def __init__(self, path: str):
        ids, first_lengths, labels = [], [], []
        with np.load(path) as arrays:
            self.parts = [
                [arrays[f"{name}_{i}"] for name in (*INPUT_NAMES, "label")]
                for i in range(int(arrays["count"]))]
        for tokens, visible, segment, label in self.parts:
            for row, count, second in zip(tokens, visible.sum(axis=1),
                                          segment.sum(axis=1), strict=True):
                ids.append(row[:count].tolist())
                first_lengths.append(int(count - second))
            labels += label.tolist()
        super().__init__(data.Encoded(ids=ids, first_lengths=first_lengths), labels,
                         batch_size=len(self.parts[0][0]))

    def epoch_plan(self, epoch: int) -> list[np.ndarray]:
        """The examples in their order."""
        return np.split(np.arange(len(self)), len(self.parts))


class WaitForTurn(keras.callbacks.Callback):
    """Trains as many steps as are asked for, then waits for the next request.

    Args:
        channel: to the benchmark.
    """

    def __init__(self, channel: protocol.Channel):
        super().__init__()
        self._channel = channel
        self._requests = channel.requests()
        self._epoch_loss = None

    def on_train_begin(self, logs=None):
        """Waits for the first request."""
        self._wait()

    def on_train_batch_end(self, batch, logs=None):
        """Notes the time; at the segment's end, answers and waits."""
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now
        if batch + 1 == self.params["steps"]:  # Keras' loss is the epoch's mean so far
            self._epoch_loss = logs["loss"]
        if len(self._seconds) == self._steps:
            self._channel.say(seconds=self._seconds, epoch_loss=self._epoch_loss)
            self._wait()

    def _wait(self):
        request = next(self._requests, None)
        if request is None:
            self.model.stop_training = True
            request = {"steps": 0}
        self._steps = request["steps"]
        self._seconds = []
        self._last = time.perf_counter()


def main() -> None:
    """Trains, a segment of steps for each request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir", help="as tfopt.model.load takes it")
    parser.add_argument("batches", help="an .npz with input_ids_0, label_0, ...")
    parser.add_argument("settings", help="tfopt's training settings as JSON")
    parser.add_argument("num_labels", type=int)
    arguments = parser.parse_args()
    channel = protocol.Channel()
    settings = train.Settings(**json.loads(arguments.settings))
    batches = FixedBatches(arguments.batches)
    for (inputs, _), part in zip(batches.dataset(), batches.parts, strict=True):
        for name, expected in zip(INPUT_NAMES, part, strict=False):
            np.testing.assert_array_equal(inputs[name], expected)
    bert = model.load(arguments.model_dir, num_labels=arguments.num_labels,
                      seed=settings.seed)
    logits = bert(dict(zip(INPUT_NAMES, batches.parts[0], strict=False)),
                  training=False)
    channel.say(ready=True, logits=logits.numpy().tolist())
    train.fit(bert, batches, settings=settings, callbacks=[WaitForTurn(channel)])


if __name__ == "__main__":
    main()
