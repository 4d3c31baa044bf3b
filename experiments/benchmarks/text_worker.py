"""Answers texts by `tfopt.Interpreter`, as mediapipe_worker.py does by MediaPipe.

A request is {"texts": N texts}; the answer is {"seconds": N floats, "scores": N lists,
by class}: the scores of the logits.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import protocol

import tfopt


def main() -> None:
    """Answers requests until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a .tflite")
    parser.add_argument("tokenizer", help="a directory")
    parser.add_argument("num_threads", type=int)
    arguments = parser.parse_args()
    channel = protocol.Channel()
    model = tfopt.Interpreter(arguments.file, num_threads=arguments.num_threads,
                              encoder=tfopt.data.tokenizer_from(arguments.tokenizer),
                              max_length=512, known=True)
    channel.say(ready=True)
    for request in channel.requests():
        seconds, scores = [], []
        for asked in request["texts"]:
            start = time.perf_counter()
            logits, = model.predict([asked])
            exact = np.exp(logits - logits.max())
            scores.append((exact / exact.sum()).tolist())
            seconds.append(time.perf_counter() - start)
        channel.say(seconds=seconds, scores=scores)


if __name__ == "__main__":
    main()
