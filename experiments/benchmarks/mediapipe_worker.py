"""Answers texts by MediaPipe, which runs in an environment of its own.

A request is {"texts": N texts}; the answer is {"seconds": N floats, "scores": N lists,
by class}; of a file of vectors the scores are the vectors.
"""

from __future__ import annotations

import argparse
import time

import protocol
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import text


class Classifier:
    """MediaPipe's TextClassifier.

    Args:
        options: which file.
    """

    def __init__(self, options):
        self._client = text.TextClassifier.create_from_options(
            text.TextClassifierOptions(base_options=options))

    def run(self, asked: str):
        """Its answer as it is."""
        return self._client.classify(asked)

    @staticmethod
    def numbers(answer) -> list[float]:
        """The score of each class."""
        found = answer.classifications[0].categories
        return [one.score for one in sorted(found, key=lambda one: one.index)]

    @staticmethod
    def labels(answer) -> list[str]:
        """The classes' names, in the order of the scores."""
        found = answer.classifications[0].categories
        return [one.category_name for one in sorted(found, key=lambda one: one.index)]


class Embedder:
    """MediaPipe's TextEmbedder.

    Args:
        options: which file.
        l2_normalize: whether vectors are made of length 1.
    """

    def __init__(self, options, l2_normalize: bool):
        self._client = text.TextEmbedder.create_from_options(text.TextEmbedderOptions(
            base_options=options, l2_normalize=l2_normalize))

    def run(self, asked: str):
        """Its answer as it is."""
        return self._client.embed(asked)

    @staticmethod
    def numbers(answer) -> list[float]:
        """The vector."""
        return answer.embeddings[0].embedding.tolist()

    @staticmethod
    def labels(answer) -> list[str]:
        """None."""
        return []


def main() -> None:
    """Answers requests until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a .tflite with metadata")
    parser.add_argument("kind", choices=["classify", "embed", "embed_normalized"])
    arguments = parser.parse_args()
    channel = protocol.Channel()
    options = tasks.BaseOptions(model_asset_path=arguments.file)
    client = (Classifier(options) if arguments.kind == "classify"
              else Embedder(options, arguments.kind == "embed_normalized"))
    channel.say(ready=True)
    for request in channel.requests():
        seconds, answers = [], []
        for asked in request["texts"]:
            start = time.perf_counter()
            answers.append(client.run(asked))
            seconds.append(time.perf_counter() - start)
        channel.say(seconds=seconds, scores=[client.numbers(one) for one in answers],
                    labels=client.labels(answers[0]) if answers else [])


if __name__ == "__main__":
    main()
