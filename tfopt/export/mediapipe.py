"""A text model's `.tflite` -> one that MediaPipe Tasks open, too.

    contents = mediapipe.add(contents, vocabulary=tokenizer.words, labels=["no", "yes"])

Its TextClassifier takes scores as they are, reads texts by BERT's WordPiece from a
vocabulary in the file, and resizes the model to each text, however long: so that
probabilities go before the logits, vocabulary and labels behind the model, and tokens
above the last position take its place. Signature and logits stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt.export import flatbuffer, graph_edits, model_metadata
from tfopt.export.litert import LAST_POSITION
from tfopt.export.model_metadata import Metadata
from tfopt.types import check_lists

__all__ = ["PROBABILITIES", "SCORES", "Unfit", "add", "problems"]

PROBABILITIES = "probabilities"
# What makes scores of logits -> the operation.
SCORES = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}
# Our inputs -> what MediaPipe calls them.
_NAMES = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "segment_ids"}
_LOGITS = "logits"
_VOCABULARY, _LABELS = "vocab.txt", "labels.txt"
_LOOKUPS = {"EMBEDDING_LOOKUP": (0, 1), "GATHER": (1, 0)}  # places of ids and table


class Unfit(ValueError):
    """What keeps a `.tflite` from being one for MediaPipe.

    Args:
        reason: why it cannot be.

    Attributes:
        reason: the same.
    """

    def __init__(self, reason: str):
        super().__init__(f"A .tflite cannot be one for MediaPipe: {reason}")
        self.reason = reason


def add(contents: bytes, *, vocabulary: Sequence[str], labels: Sequence[str] = (),
        scores: str = "softmax") -> bytes:
    """Adds what MediaPipe needs.

    Args:
        contents: a `.tflite` by `export.tflite`.
        vocabulary: BERT's, uncased, by id.
        labels: by class; none makes the file one for the TextEmbedder.
        scores: what makes scores of logits, one of `SCORES`, where there are labels.

    Returns:
        The `.tflite`, with the outputs "probabilities" and "logits" where there are
        labels.

    Raises:
        Unfit: it cannot be a file for MediaPipe.
        ValueError: it is damaged, or has metadata already.
    """
    check_lists(vocabulary=vocabulary, labels=labels)
    if labels and scores not in SCORES:
        raise ValueError(f"`scores` must be one of {tuple(SCORES)}. Received: "
                         f"scores={scores!r}")
    model = flatbuffer.parse(contents)
    reason = _why_not(model, vocabulary, labels)
    if reason:
        raise Unfit(reason)
    _bound_positions(model)
    if labels:
        _put_scores_first(model, SCORES[scores])
    names = _input_names(model)
    files = {_VOCABULARY: _lines(vocabulary)}
    if labels:
        files[_LABELS] = _lines(labels)
    return model_metadata.added(model, Metadata(
        name="BertTextClassifier" if labels else "BertTextEmbedder",
        inputs=tuple(_NAMES[name] for name in names),
        outputs=("probability", _LOGITS) if labels else ("embedding",),
        vocabulary=_VOCABULARY, labels=_LABELS if labels else ""), files)


def _why_not(model, vocabulary: Sequence[str], labels: Sequence[str]) -> str | None:
    """Why a model cannot be one for MediaPipe; None where it can."""
    graph, signature = model.subgraphs[0], _signature(model)
    if len(model.subgraphs) > 1 or signature is None:
        return "it must have one graph, with a signature and the output 'logits'"
    if {*_input_names(model)} != {*_NAMES}:
        return (f"its inputs must be {', '.join(_NAMES)}; this model's are "
                f"{', '.join(_input_names(model))}")
    output = graph.tensors[_logits(signature)]
    if flatbuffer.dtype(output) != "float32":
        return f"its output must be float32; this one's is {flatbuffer.dtype(output)}"
    if len(output.shape) != 2:
        return "its output must be that of a text; this one's is of each token"
    if labels and len(labels) != output.shape[-1]:
        return (f"its {output.shape[-1]} outputs must have a label each; there are "
                f"{len(labels)} labels")
    for name, words in (("label", labels), ("vocabulary", vocabulary)):
        broken = next((word for word in words if not word or {*word} & {"\n", "\r"}),
                      None)
        if broken is not None:
            return f"each {name} must be one line; {broken!r} is none"
    return None


def problems(contents: bytes) -> list[str]:
    """What MediaPipe would not open, or answer wrongly, in a file with metadata.

    Args:
        contents: of the `.tflite`.

    Raises:
        ValueError: the file, or its metadata, are damaged.
    """
    found = model_metadata.read(contents)
    if found is None:
        return ["it has no metadata"]
    metadata, files = found
    model = flatbuffer.parse(contents)
    graph = model.subgraphs[0]
    inputs, outputs = ([graph.tensors[i] for i in side]
                       for side in (graph.inputs, graph.outputs))
    shapes = [graph_edits.shape_of(tensor) for tensor in inputs]
    labels = files.get(metadata.labels, "").split("\n")[:-1]
    expected = tuple(_NAMES.get(name, "") for name in _input_names(model))
    rules = {
        "it must have one graph": len(model.subgraphs) == 1,
        "its inputs must be three of int32, [1, tokens]": len(inputs) == len(_NAMES)
        and all(flatbuffer.dtype(tensor) == "int32" and len(shape) == 2
                and shape[0] == 1
                for tensor, shape in zip(inputs, shapes, strict=True)),
        "its inputs must be open in length together, or of one length":
        len({tuple(shape) for shape in shapes}) == 1,
        f"its inputs must be named {expected} in the metadata, in the graph's order":
        metadata.inputs == expected,
        "it must have as many outputs in the metadata as in the graph":
        len(metadata.outputs) == len(outputs),
        "its first output must be float32, of a text":
        flatbuffer.dtype(outputs[0]) == "float32" and len(outputs[0].shape) == 2,
        "it must have a vocabulary": bool(files.get(metadata.vocabulary)),
        "it must have a label for each output":
        not metadata.labels or len(labels) == outputs[0].shape[-1],
        "its labels must be of scores": not metadata.labels
        or any(flatbuffer.kind(model, operation) in SCORES.values()
               and operation.outputs[0] == graph.outputs[0]
               for operation in graph.operators),
        "a text above its positions must be answered": shapes[0][-1] >= 0
        or any(tensor.name == LAST_POSITION.encode() for tensor in graph.tensors),
    }
    return [rule for rule, kept in rules.items() if not kept]


def _lines(words: Sequence[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def _signature(model):
    """The signature with logits; None where there is none."""
    return next((one for one in model.signatureDefs or []
                 if _logits(one) is not None), None)


def _logits(signature) -> int | None:
    return next((one.tensorIndex for one in signature.outputs or []
                 if one.name == _LOGITS.encode()), None)


def _input_names(model) -> list[str]:
    """Our names of the graph's inputs, in its order."""
    names = {one.tensorIndex: one.name.decode() for one in _signature(model).inputs}
    return [names.get(index, "") for index in model.subgraphs[0].inputs]


def _bound_positions(model) -> None:
    """Looks tokens above the last position up there: MINIMUM(range, positions - 1)."""
    graph = model.subgraphs[0]
    makers = {operation.outputs[0]: operation for operation in graph.operators}
    operators = []
    for operation in graph.operators:
        ids, rows = _LOOKUPS.get(flatbuffer.kind(model, operation), (None, None))
        maker = None if ids is None else makers.get(operation.inputs[ids])
        if maker is not None and flatbuffer.kind(model, maker) == "RANGE":
            table = graph.tensors[operation.inputs[rows]]
            last = graph_edits.constant(model, graph, LAST_POSITION.encode(),
                                        np.array(int(table.shape[0]) - 1, np.int32))
            bounded = graph_edits.tensor(graph, b"bounded_positions", [-1])
            operators.append(graph_edits.operator(
                model, "MINIMUM", [operation.inputs[ids], last], bounded))
            operation.inputs = np.array([bounded if i == ids else index for i, index
                                         in enumerate(operation.inputs)], np.int32)
        operators.append(operation)
    graph.operators = operators


def _put_scores_first(model, kind: str) -> None:
    """Makes scores the first output, and the logits the second."""
    graph, signature = model.subgraphs[0], _signature(model)
    logits = next(one.tensorIndex for one in signature.outputs
                  if one.name == _LOGITS.encode())
    output = graph_edits.tensor(graph, PROBABILITIES.encode(),
                                [int(size) for size in graph.tensors[logits].shape],
                                "FLOAT32")
    options: dict[str, Any] = {"beta": 1.0} if kind == "SOFTMAX" else {}
    graph.operators.append(graph_edits.operator(model, kind, [logits], output,
                                                **options))
    graph.outputs = np.array([output, logits], np.int32)
    signature.outputs.append(graph_edits.named(PROBABILITIES, output))

