"""Times one ONNX file by ONNX Runtime; answers as `tfopt.measure.worker` does.

A request is {"ids": N lists, "first_lengths": N numbers}; the answer is {"seconds": N
floats, "logits": N lists}.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime
import protocol

from tfopt import inputs  # found by PYTHONPATH; needs NumPy alone


class Runner:
    """An ONNX encoder for one text at a time, at its own length.

    Args:
        path: of the file.
        num_threads: for each request.
        spinning: whether idle threads of the pool spin for a while, the default.
    """

    def __init__(self, path: str, num_threads: int, spinning: bool):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        if not spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"])
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
        self._dtypes = {i.name: kinds[i.type] for i in self._session.get_inputs()}

    def run(self, ids, first_length: int) -> np.ndarray:
        """Computes one example: logits <float32>[C], or what it gives."""
        built = inputs.build([ids], [first_length], list(self._dtypes))
        feed = {name: built[name].astype(dtype)
                for name, dtype in self._dtypes.items()}
        return self._session.run(["logits"], feed)[0][0]


def main() -> None:
    """Answers requests until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="an ONNX file")
    parser.add_argument("num_threads", type=int)
    parser.add_argument("--no_spinning", action="store_true")
    arguments = parser.parse_args()
    channel = protocol.Channel()
    runner = Runner(arguments.file, arguments.num_threads, not arguments.no_spinning)
    channel.say(ready=True)
    for request in channel.requests():
        seconds, logits = [], []
        for example in zip(request["ids"], request["first_lengths"], strict=True):
            start = time.perf_counter()
            answer = runner.run(*example)
            seconds.append(time.perf_counter() - start)
            logits.append(answer.tolist())
        channel.say(seconds=seconds, logits=logits)


if __name__ == "__main__":
    main()
