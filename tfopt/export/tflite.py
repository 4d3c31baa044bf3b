"""keras.Model -> the bytes of a `.tflite` file.

Every scheme uses built-in operations alone, no flex ops. A BERT is wired anew first
(`model.for_inference`): the same numbers from two thirds of the operations. The batch
is one text; its length is open, `[1, None]`, to be resized per request, unless fixed.

The converter makes a float graph; `export.aeq` quantizes that by the rules of a
scheme, with ranges that were seen on examples (`export.calibrate`) or trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from absl import logging

from tfopt import functional
from tfopt import model as models
from tfopt.backend import keras, tf
from tfopt.export import aeq, calibrate, converter, flatbuffer, ranges, schemes
from tfopt.export.aeq import Rule
from tfopt.export.ranges import FloatGraph
from tfopt.export.schemes import SCHEMES, Numbers, Scheme
from tfopt.model.anatomy import FFN_PRODUCT
from tfopt.types import check_lists

__all__ = ["SCHEMES", "check_for_old_runtimes", "check_scheme", "convert",
           "float_graph", "is_quantized", "needs_calibration", "operations",
           "prepared", "quantize", "weights_in_float"]

_PRODUCT = "FULLY_CONNECTED"
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_TABLE = "EMBEDDING_LOOKUP"
_FEW = 1024  # numbers, of which a name is not worth the reading
is_quantized = schemes.is_quantized
needs_calibration = schemes.needs_calibration


def check_scheme(scheme: str) -> None:
    """Checks that a scheme is known.

    Raises:
        ValueError: it is not.
    """
    schemes.get(scheme)


def check_for_old_runtimes(scheme: str) -> None:
    """Checks that an export can be one for old runtimes.

    Raises:
        ValueError: its output or its tables are none that they have.
    """
    chosen = schemes.get(scheme)
    if chosen.integer or chosen.is_quantized and chosen.table.weight_bits != 8:
        raise ValueError("Old runtimes have tables of 8 bits, and an output in float. "
                         f"Received: for_old_runtimes=True for {scheme!r}")


def _rule(operation: str, numbers: Numbers, pattern: str = "",
          one_scale: bool = False) -> Rule:
    return Rule(operation, numbers.mode, pattern, numbers.weight_bits,
                numbers.activation_bits or 8, numbers.block, one_scale)


def _rules(scheme: Scheme, for_old_runtimes: bool = False) -> tuple[Rule, ...]:
    """How a float graph becomes one of a scheme."""
    if scheme.integer:
        return (_rule("*", scheme.product),)
    own = () if scheme.ffn_product == scheme.product else (
        _rule(_PRODUCT, scheme.ffn_product, FFN_PRODUCT),)
    return (_rule(_PRODUCT, scheme.product), *own,
            *(_rule(kind, scheme.product.in_8_bits()) for kind in _CONVOLUTIONS),
            _rule(_TABLE, scheme.table, one_scale=for_old_runtimes))


def convert(
    model: keras.Model,
    scheme: str = "dynamic_wi8_afp32",
    *,
    length: int | None = None,
    calibration: Sequence[calibrate.Example] | None = None,
    method: str = "min_max",
    leave: Sequence[str] = (),
    for_old_runtimes: bool = False,
) -> bytes:
    """Converts a model.

    Args:
        model: functional, of finite weights, models within it unfolded; its inputs are
            <...>[B, ...] each. Of one that was trained with quantization the file has
            the very integers, and the ranges, if the scheme is the one it was trained
            for.
        scheme: one of `SCHEMES`.
        length: tokens of the input; None leaves it open, to be resized per request.
        calibration: examples, a batch of 1 each, at their natural lengths
            (`tfopt.inputs.examples`); for the schemes that need ranges.
        method: how ranges are taken from them, one of `calibrate.METHODS`.
        leave: as of `quantize`.
        for_old_runtimes: as of `float_graph`.

    Returns:
        A `.tflite` with the signature `serving_default`, from the model's inputs by
        name, of batch 1, to "logits".

    Raises:
        ValueError: the scheme is unknown, the length out of range, calibration is
            needed and missing, or the model is not functional, has several outputs, is
            wrapped for training, has weights that are NaN, or holds an operation that
            TFLite has not.
    """
    chosen = schemes.get(scheme)
    model = functional.flat(model)
    if not chosen.is_quantized:
        plain = models.plain_copy(model) if models.quantized_layers_of(model) else model
        return converter.to_bytes(
            plain, length=length, types=tuple(map(tf.as_dtype, chosen.types)),
            optimizations=[tf.lite.Optimize[name] for name in chosen.optimizations])
    graph = float_graph(model, length=length, for_old_runtimes=for_old_runtimes)
    contents = quantize(graph, scheme, calibration=calibration, method=method,
                        leave=leave)
    floats = {} if leave else weights_in_float(contents)
    if floats:
        logging.warning("%s leaves weights in float32: %s", scheme, ", ".join(floats))
    return contents


def weights_in_float(contents: bytes) -> dict[str, int]:
    """The kernels and tables of a file that are no integers.

    Such as of a recurrent layer, of whose operations no scheme says anything; a few
    numbers alone do not count.

    Args:
        contents: a `.tflite`.

    Returns:
        The operation that takes them, by its output's name and its kind -> bytes.
    """
    model = flatbuffer.parse(contents)
    found: dict[str, int] = {}
    for graph in model.subgraphs:
        for operation in graph.operators:
            name = (f"{flatbuffer.output_name(graph, operation)} "
                    f"({flatbuffer.kind(model, operation)})")
            for tensor in (graph.tensors[i] for i in operation.inputs if i >= 0):
                data = flatbuffer.stored(model, tensor)
                if (data is not None and len(data) > 4 * _FEW and len(tensor.shape) > 1
                        and flatbuffer.dtype(tensor) == "float32"):
                    found[name] = found.get(name, 0) + len(data)
    return found


def float_graph(model: keras.Model, *, length: int | None = None,
                for_old_runtimes: bool = False) -> FloatGraph:
    """Converts a model to float32, from which `quantize` makes the quantized schemes.

    Args:
        model: as of `convert`.
        length: as of `convert`.
        for_old_runtimes: whether its tables are to have one scale, in place of one for
            each row: of these MediaPipe 0.10.14 and older, and the Task Library,
            compute nonsense without a word. It costs quality.

    Returns:
        The graph.

    Raises:
        ValueError: as of `convert`.
    """
    model = functional.flat(model)
    trained = models.quantized_layers_of(model)
    plain = models.plain_copy(model) if trained else model
    return FloatGraph(model=plain, length=length, trained=trained,
                 contents=converter.to_bytes(plain, length=length, outlier_channels={}),
                 for_old_runtimes=for_old_runtimes)


def quantize(
    graph: FloatGraph,
    scheme: str,
    *,
    calibration: Sequence[calibrate.Example] | None = None,
    method: str = "min_max",
    leave: Sequence[str] = (),
    alone: Sequence[str] | None = None,
) -> bytes:
    """Quantizes a float graph.

    Args:
        graph: from `float_graph`.
        scheme: one of `SCHEMES` that quantizes.
        calibration: as of `convert`.
        method: as of `convert`.
        leave: names of operations' outputs, as `operations` gives them; these stay in
            float.
        alone: names of the only ones to be quantized; None for all.

    Returns:
        The quantized `.tflite`.

    Raises:
        ValueError: as of `convert`.
    """
    chosen = schemes.get(scheme)
    check_lists(leave=leave, alone=alone)
    if method not in calibrate.METHODS:
        raise ValueError(f"`method` must be one of {calibrate.METHODS}. "
                         f"Received: method={method!r}")
    if not chosen.is_quantized:
        raise ValueError("A quantized export is asked for; `convert` makes the others. "
                         f"Received: {scheme!r}")
    if graph.for_old_runtimes:
        check_for_old_runtimes(scheme)
    contents, found = prepared(graph, scheme, calibration=calibration), None
    if chosen.needs_calibration:
        of = ranges.of_all if chosen.integer else ranges.of_products
        found = of(graph, calibration, method)
    rules = list(_rules(chosen, graph.for_old_runtimes))
    rules += _in_8_bits(contents, rules)
    known = (operations(graph, scheme, calibration=calibration)
             if leave or alone is not None else {})
    unknown = sorted({*leave, *(alone or ())} - set(known))
    if unknown:
        raise ValueError(f"Operations must be among those that {scheme!r} quantizes, "
                         f"such as {list(known)[:4]}. Received: {unknown}")
    if alone is not None:
        leave = [name for name in known if name not in alone]
    rules += [Rule("*", "float", _only(name)) for name in leave]
    quantized = aeq.quantize(contents, rules, found)
    logging.info("Exported %s: %.1f MB", scheme, len(quantized) / 1e6)
    return quantized


def prepared(graph: FloatGraph, scheme: str, *,
             calibration: Sequence[calibrate.Example] | None = None) -> bytes:
    """The float `.tflite` that a scheme quantizes, operation by operation.

    Args:
        graph: from `float_graph`.
        scheme: one of `SCHEMES` that quantizes.
        calibration: as of `convert`; by it a graph of integers alone is wired.

    Returns:
        The `.tflite`; it computes what the graph does.

    Raises:
        ValueError: the scheme is unknown, or calibration is needed and missing.
    """
    return (ranges.for_integers(graph, calibration) if schemes.get(scheme).integer
            else graph.looked_up)


def operations(graph: FloatGraph, scheme: str, *,
               calibration: Sequence[calibrate.Example] | None = None
               ) -> dict[str, str]:
    """The operations that a scheme quantizes: name of the output -> kind.

    Args:
        graph: as of `prepared`.
        scheme: the same.
        calibration: the same.

    Raises:
        ValueError: as of `prepared`.
    """
    model = flatbuffer.parse(prepared(graph, scheme, calibration=calibration))
    kinds = {rule.operation for rule in _rules(schemes.get(scheme))}
    return {flatbuffer.output_name(part, operation): flatbuffer.kind(model, operation)
            for part in model.subgraphs for operation in part.operators
            if kinds & {"*", flatbuffer.kind(model, operation)}}


def _only(name: str) -> str:
    """The pattern of one name, behind which the quantizer puts a semicolon."""
    return f"^{re.escape(name)};?$"


def _in_8_bits(contents: bytes, rules: Sequence[Rule]) -> list[Rule]:
    """Rules for the weights that do not come in whole blocks."""
    in_blocks = [rule for rule in rules if rule.block is not None]
    if not in_blocks:
        return []
    model, found = flatbuffer.parse(contents), []
    for rule in in_blocks:
        for operation in flatbuffer.operations(model, rule.operation):
            # The weights are the second operand of a product, and of a lookup.
            width = model.subgraphs[0].tensors[operation.inputs[1]].shape[-1]
            if width % rule.block:
                name = flatbuffer.output_name(model.subgraphs[0], operation)
                found.append(Rule(rule.operation, rule.mode, _only(name)))
    return found
