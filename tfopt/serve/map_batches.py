"""A bundle as Ray Data maps batches: columns of texts -> columns of answers.

    ray.data.read_json("texts.jsonl").map_batches(
        Answers, fn_constructor_args=["runs/a"], concurrency=2, num_cpus=1,
        batch_size=256).write_json("answers")

Each of Ray's workers, on any machine, opens the bundle once; it must lie where all of
them see it. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfopt.files import to_json
from tfopt.serve import bulk
from tfopt.serve.bundle import Bundle
from tfopt.types import PathLike

_ERROR = "error"


class Answers:
    """Answers batches of texts, one thread each: a worker a core.

    Args:
        directory: of the bundle.
        text: column of the texts.
        pair: column of the second texts, or None.

    Raises:
        ValueError: as `Bundle.open`.
    """

    def __init__(self, directory: PathLike, text: str = "text",
                 pair: str | None = None):
        self._bundle = Bundle.open(directory, num_threads=1, copies=1)
        self._text, self._pair = text, pair

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds columns to a batch.

        Args:
            batch: column -> N values.

        Returns:
            The same with the answers' single values, such as `label` and `score`, lists
            in JSON, and `error`: why a text has none, or "".

        Raises:
            ValueError: there is no such column.
        """
        missing = {self._text, self._pair or self._text} - set(batch)
        if missing:
            raise ValueError(f"A batch must have the columns {sorted(missing)}. "
                             f"Received: {sorted(batch)}")
        texts = [str(text) for text in batch[self._text]]
        pairs = [None] * len(texts) if self._pair is None else [
            str(pair) for pair in batch[self._pair]]
        found = [{name: to_json(value, ensure_ascii=False)
                  if isinstance(value, list) else value for name, value in each.items()}
                 for each in bulk.answers(
                     self._bundle, list(zip(texts, pairs, strict=True)))]
        names = dict.fromkeys(name for each in found for name, value in each.items()
                              if not isinstance(value, dict) and name != _ERROR)
        missing_value = {name: "" if any(isinstance(each.get(name), str)
                                         for each in found) else np.nan
                         for name in names}
        return dict(batch) | {
            name: np.array([each.get(name, missing_value[name]) for each in found])
            for name in names} | {
            _ERROR: np.array([each.get(_ERROR, "") for each in found])}
