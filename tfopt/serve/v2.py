"""The Open Inference Protocol, version 2, over REST: tensors in JSON.

    POST /v2/models/demo/infer
    {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES",
                 "data": ["where is my parcel?"]}],
     "parameters": {"deadline_ms": 50, "variant": "3x"}}

Texts come as BYTES `text` and perhaps `pair`, or as INT32 `input_ids`, with
`attention_mask` and `token_type_ids` where texts differ in length or are pairs. The
answer has `logits`, and of a classification `probabilities` and `label`, of a number
`score`, or in the place of logits the `embedding` of each text; what else a task
answers is JSON, a text each, such as `labels` where there are several, or `spans`; and
the `variant` that answered each text. Logits of tokens are padded by zeros to the
longest text. Source: the protocol of KServe, Triton and MLServer
(kserve/open-inference-protocol), which leaves parameters to each.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt.files import to_json
from tfopt.serve import calls
from tfopt.serve.calls import Call
from tfopt.serve.models import Model
from tfopt.serve.refusal import Refusal
from tfopt.serve.request import Request
from tfopt.types import INPUT_NAMES, shown

TEXT, PAIR = "text", "pair"
_IDS, _MASK, _SEGMENTS = INPUT_NAMES
_TYPES = {TEXT: "BYTES", PAIR: "BYTES", **dict.fromkeys(INPUT_NAMES, "INT32")}
_REQUEST = ("id", "parameters", "inputs", "outputs")
_INPUT = ("name", "shape", "datatype", "parameters", "data")
_PARAMETERS = ("deadline_ms", "variant", "binary_data_output")
_INT32 = 1 << 31
_VECTOR = "embedding"  # of a task's answer


def metadata(model: Model) -> dict[str, Any]:
    """What a model reads and gives, as the protocol describes it."""
    count = model.task.outputs
    return {
        "name": model.name, "versions": [str(model.version)],
        "platform": "tfopt_litert",
        "inputs": [{"name": name, "datatype": kind,
                    "shape": [-1] if kind == "BYTES" else [-1, -1]}
                   for name, kind in _TYPES.items()],
        "outputs": [{"name": name, "datatype": kind,
                     "shape": [-1, *([-1] if model.task.per_token else []), count]
                     if wide else [-1]}
                    for name, (kind, wide) in outputs_of(model).items()],
        "parameters": {
            "task": model.task.name(), "labels": list(model.task.labels),
            "variants": [one.name for one in model.variants],
            "cascade": [{"variant": variant.name, "threshold": threshold}
                        for variant, threshold in model.steps]}}


def outputs_of(model: Model) -> dict[str, tuple[str, bool]]:
    """Name of an output -> its datatype, and whether it has a column an output."""
    known = {"logits": ("FP32", True), "probabilities": ("FP32", True),
             "label": ("BYTES", False), "score": ("FP32", False),
             _VECTOR: ("FP32", True), "variant": ("BYTES", False)}
    there = {"logits", "variant", *model.answers}
    if _VECTOR in there:  # as it is asked for, in the place of what the model gives
        there.remove("logits")
    if "scores" in model.answers:
        there.add("probabilities")
    return {name: kind for name, kind in known.items() if name in there} | {
        name: ("BYTES", False) for name in model.answers
        if name not in known and name != "scores"}


def parse(model: Model, fields: dict[str, Any]) -> Call:
    """Reads the body of a request for inference.

    Args:
        model: that is asked.
        fields: of the body's JSON object.

    Returns:
        The call.

    Raises:
        Refusal: 400, a field is not as the protocol, or the model, has it.
    """
    calls.check_keys(fields, _REQUEST, "A request")
    parameters = fields.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, "`parameters` must be an object. Received: parameters="
                      f"{shown(parameters)}")
    calls.check_keys(parameters, _PARAMETERS, "`parameters`")
    if parameters.get("binary_data_output"):
        raise Refusal(400, "Tensors are answered in JSON. Received: "
                      "binary_data_output")
    wanted = _wanted(model, fields.get("outputs"))
    tensors = _tensors(fields.get("inputs"))
    ids: list[tuple[list[int], int]] = []
    texts, pairs = tensors.get(TEXT, []), tensors.get(PAIR)
    if texts:
        _only(tensors, (TEXT, PAIR))
        calls.same_number(texts, pairs)
    elif _IDS in tensors:
        _only(tensors, INPUT_NAMES)
        ids = _examples(tensors)
    else:
        raise Refusal(400, f"There must be an input {TEXT} or {_IDS}. Received: "
                      f"{', '.join(tensors)}")
    return Call(
        texts=texts, pairs=pairs, ids=ids, deadline_ms=calls.deadline_of(parameters),
        variant=calls.word_of(parameters, "variant"),
        render=functools.partial(_render, wanted, calls.word_of(fields, "id")))


def _wanted(model: Model, outputs: Any) -> list[str]:
    known = outputs_of(model)
    if outputs is None or outputs == []:
        return list(known)
    names = [output["name"] for output in outputs if isinstance(output, dict)
             and isinstance(output.get("name"), str) and output["name"] in known
             ] if isinstance(outputs, list) else []
    if not names or len(names) < len(outputs):
        raise Refusal(400, "`outputs` must be a list of objects, whose names are of "
                      f"{', '.join(known)}. Received: outputs={shown(outputs)}")
    return list(dict.fromkeys(names))


def _tensors(inputs: Any) -> dict[str, list]:
    """Name -> N texts, or N lists of T numbers."""
    if not isinstance(inputs, list) or not inputs:
        raise Refusal(400, "`inputs` must be a list of one tensor or more. Received: "
                      f"inputs={shown(inputs)}")
    found: dict[str, list] = {}
    for tensor in inputs:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str) or name not in _TYPES:
            raise Refusal(400, "An input must be an object, whose name is of "
                          f"{', '.join(_TYPES)}. Received: {shown(tensor)}")
        if name in found:
            raise Refusal(400, f"An input must be there once. Received: {name} twice")
        calls.check_keys(tensor, _INPUT, f"The input {name}")
        if tensor.get("datatype") != _TYPES[name]:
            raise Refusal(400, f"The input {name} must be of datatype {_TYPES[name]}. "
                          f"Received: {shown(tensor.get('datatype'), 60)}")
        found[name] = _values(name, tensor.get("shape"), tensor.get("data"))
    return found


def _values(name: str, shape: Any, data: Any) -> list:
    texts = _TYPES[name] == "BYTES"
    rule = "[N] or [N, 1]" if texts else "[N, T]"
    if (not isinstance(shape, list) or not all(
            type(size) is int and 0 < size < _INT32 for size in shape)
            or len(shape) not in ((1, 2) if texts else (2,))
            or texts and shape[1:] not in ([], [1])):
        raise Refusal(400, f"The shape of {name} must be {rule}, its sizes at least 1. "
                      f"Received: shape={shown(shape)}")
    if not isinstance(data, list):
        raise Refusal(400, f"The data of {name} must be a list. Received: "
                      f"{'none' if data is None else shown(data)}")
    if data and isinstance(data[0], list):  # nested, as the shape is
        if len(shape) < 2 or any(not isinstance(row, list) or len(row) != shape[1]
                                 for row in data):
            raise Refusal(400, f"The data of {name} must be of its shape, {shape}. "
                          f"Received: {shown(data, 60)}")
        data = [value for row in data for value in row]
    if len(data) != math.prod(shape):
        raise Refusal(400, f"The data of {name} must have the {math.prod(shape)} values"
                      f" of its shape, {shape}. Received: {len(data)}")
    if texts:
        return calls.texts_of(data, name)
    if not all(type(value) is int and -_INT32 <= value < _INT32 for value in data):
        raise Refusal(400, f"The data of {name} must be whole numbers of 32 bits. "
                      f"Received: {shown(data, 60)}")
    width = shape[1]
    return [data[start:start + width] for start in range(0, len(data), width)]


def _only(tensors: dict[str, list], names: Sequence[str]) -> None:
    others = [name for name in tensors if name not in names]
    if others:
        raise Refusal(400, f"Inputs that go together are {', '.join(names)}. Received: "
                      f"{', '.join(tensors)}")


def _examples(tensors: dict[str, list]) -> list[tuple[list[int], int]]:
    rows = tensors[_IDS]
    masks, segments = (tensors.get(name) or [None] * len(rows)
                       for name in (_MASK, _SEGMENTS))
    for name, values in ((_MASK, masks), (_SEGMENTS, segments)):
        if len(values) != len(rows) or any(
                value is not None and len(value) != len(row)
                for value, row in zip(values, rows, strict=True)):
            raise Refusal(400, f"{name} must be of the shape of {_IDS}. Received: "
                          f"{len(values)} texts for {len(rows)}, or another length")
    return [_example(*parts) for parts in zip(rows, masks, segments, strict=True)]


def _example(ids: list[int], mask: list[int] | None, segments: list[int] | None
             ) -> tuple[list[int], int]:
    count = len(ids) if mask is None else sum(value == 1 for value in mask)
    if mask is not None and (not count or mask != [1] * count
                             + [0] * (len(ids) - count)):
        raise Refusal(400, f"{_MASK} must be ones, then zeros, of each text. Received: "
                      f"{shown(mask, 60)}")
    if segments is None:
        return ids[:count], count
    first = sum(value == 0 for value in segments[:count])
    if segments[:count] != [0] * first + [1] * (count - first):
        raise Refusal(400, f"{_SEGMENTS} must be zeros, then ones, of each text. "
                      f"Received: {shown(segments, 60)}")
    return ids[:count], first


def _render(wanted: Sequence[str], id_: str | None, request: Request, seconds: float
            ) -> str:
    model, count = request.model, len(request)
    kinds = outputs_of(model)
    outputs = []
    for name in wanted:
        kind, wide = kinds[name]
        tokens = [max(len(answer.outputs) for answer in request.given())] if (
            model.task.per_token) else []
        outputs.append({"name": name, "datatype": kind,
                        "shape": [count, *tokens, model.task.outputs] if wide
                        else [count],
                        "data": _DATA[name](request.given(), model.task.labels)
                        if name in _DATA else [
                            to_json(answer.fields[name], ensure_ascii=False)
                            for answer in request.given()]})
    return to_json({
        "model_name": model.name, "model_version": str(model.version),
        **({} if id_ is None else {"id": id_}), "outputs": outputs,
        "parameters": {"milliseconds": round(1e3 * seconds, 3)}}, ensure_ascii=False)


def _of_one_size(rows: Sequence[np.ndarray]) -> list[list[float]]:
    """Numbers, with zeros behind those of texts that have fewer tokens."""
    longest = max(map(len, rows))
    return [[*row.tolist(), *[0.0] * (longest - len(row))] for row in rows]


_DATA: dict[str, Any] = {
    "logits": lambda answers, labels: [
        value for row in _of_one_size([answer.outputs.ravel() for answer in answers])
        for value in row],
    "probabilities": lambda answers, labels: [
        answer.fields["scores"][label] for answer in answers for label in labels],
    "label": lambda answers, labels: [answer.fields["label"] for answer in answers],
    _VECTOR: lambda answers, labels: [
        value for answer in answers for value in answer.fields[_VECTOR]],
    "score": lambda answers, labels: [answer.fields["score"] for answer in answers],
    "variant": lambda answers, labels: [answer.variant.name for answer in answers],
}
