"""keras.Model -> the bytes of a `.tflite` file.

Every scheme uses built-in operations alone, no flex ops. A BERT is wired anew first
(`model.for_inference`): the same numbers from two thirds of the operations. The batch
is one text; its length is open, `[1, None]`, to be resized per request, unless fixed.

The converter makes a float graph; `export.aeq` quantizes that by the rules of a
scheme, with ranges that were seen on examples (`export.calibrate`) or trained.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from absl import logging

from tfopt import model as models
from tfopt.backend import keras, tf
from tfopt.export import aeq, calibrate, converter, flatbuffer, ranges
from tfopt.export.aeq import Rule
from tfopt.export.ranges import FloatGraph
from tfopt.model.anatomy import FFN_PRODUCT

_KERNELS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
_TABLE = "EMBEDDING_LOOKUP"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """One way to export.

    Attributes:
        optimizations: of the converter.
        types: supported ones, of the converter.
        rules: how the float graph is quantized; none leaves it as converted.
        integer: whether the whole graph is, with an int8 output.
    """

    optimizations: tuple = ()
    types: tuple = ()
    rules: tuple[Rule, ...] = ()
    integer: bool = False

    @property
    def static(self) -> bool:
        """Whether it needs ranges."""
        return any(rule.mode == "static" for rule in self.rules)


def _kernels(mode: str, **options) -> tuple[Rule, ...]:
    return tuple(Rule(kind, mode, **options) for kind in _KERNELS)


_SCHEMES: dict[str, Scheme] = {
    # Weights and arithmetic as they are.
    "float32": Scheme(),
    # Weights kept in half the bytes; widened to float32 when loaded on a CPU.
    "float16": Scheme(optimizations=(tf.lite.Optimize.DEFAULT,), types=(tf.float16,)),
    # Int8 weights; each row of activations quantized at run time, by its own range.
    "dynamic_wi8_afp32": Scheme(rules=(*_kernels("dynamic"), Rule(_TABLE, "dynamic"))),
    # Int8 weights for their size; arithmetic as it is.
    "weight_only_wi8_afp32": Scheme(rules=(*_kernels("weight_only"),
                                           Rule(_TABLE, "dynamic"))),
    # Products in integers between calibrated ranges; but those of an ffn, to which some
    # tokens give numbers a hundred times all others, by row. The rest in float.
    "static_wi8_ai8": Scheme(rules=(
        *_kernels("static"), Rule("FULLY_CONNECTED", "dynamic", FFN_PRODUCT),
        Rule(_TABLE, "dynamic"))),
    # The same with activations of 16 bits, for accelerators: slow on CPUs.
    "static_wi8_ai16": Scheme(rules=(*_kernels("static", activation_bits=16),
                                     Rule(_TABLE, "dynamic"))),
    # Integers alone, int32 ids in and int8 logits out, for accelerators and
    # microcontrollers.
    "integer_wi8_ai8": Scheme(rules=(Rule("*", "static"),), integer=True),
    # 4 bits a weight, a scale for each 32 of them.
    "dynamic_wi4b32_afp32": Scheme(rules=(
        *_kernels("dynamic"), Rule(_TABLE, "dynamic"),
        Rule("FULLY_CONNECTED", "dynamic", weight_bits=4, block=32),
        Rule(_TABLE, "dynamic", weight_bits=4, block=32))),
    # 4 bits a weight, a scale for each output channel, and for each 32 of a table.
    "dynamic_wi4_afp32": Scheme(rules=(
        *_kernels("dynamic"), Rule(_TABLE, "dynamic"),
        Rule("FULLY_CONNECTED", "dynamic", weight_bits=4),
        Rule(_TABLE, "dynamic", weight_bits=4, block=32))),
    # Pruned kernels as their nonzeros and where they are; it saves bytes, not time. Of
    # int8 kernels LiteRT's XNNPACK computes wrong numbers so, without a word.
    "sparse_float32": Scheme(optimizations=(tf.lite.Optimize.EXPERIMENTAL_SPARSITY,)),
}
SCHEMES = tuple(_SCHEMES)


def check_scheme(scheme: str) -> None:
    """Checks that a scheme is known.

    Raises:
        ValueError: it is not.
    """
    if scheme not in _SCHEMES:
        raise ValueError(f"An export must be one of {SCHEMES}. Received: {scheme!r}")


def is_quantized(scheme: str) -> bool:
    """Whether a scheme is made by `quantize` from a float graph."""
    return bool(_SCHEMES[scheme].rules)


def needs_calibration(scheme: str) -> bool:
    """Whether a scheme needs the ranges of activations."""
    return _SCHEMES[scheme].static


def convert(
    model: keras.Model,
    scheme: str = "dynamic_wi8_afp32",
    *,
    length: int | None = None,
    calibration: Sequence[calibrate.Example] | None = None,
    method: str = "min_max",
    leave: Sequence[str] = (),
) -> bytes:
    """Converts a model.

    Args:
        model: functional; its inputs are <...>[B, ...] each. Of one that was trained
            with quantization the file has the very integers, and the ranges, if the
            scheme is the one it was trained for.
        scheme: one of `SCHEMES`.
        length: tokens of the input; None leaves it open, to be resized per request.
        calibration: examples, a batch of 1 each, at their natural lengths
            (`tfopt.inputs.examples`); for the schemes that need ranges.
        method: how ranges are taken from them, one of `calibrate.METHODS`.
        leave: as of `quantize`.

    Returns:
        A `.tflite` with the signature `serving_default`, from the model's inputs by
        name, of batch 1, to "logits".

    Raises:
        ValueError: the scheme is unknown, the length out of range, calibration is
            needed and missing, or the model is not functional, has several outputs, or
            holds an operation that TFLite has not.
    """
    check_scheme(scheme)
    chosen = _SCHEMES[scheme]
    if not chosen.rules:
        plain = models.plain_copy(model) if models.quantized_layers_of(model) else model
        return converter.to_bytes(plain, length=length, types=chosen.types,
                                  optimizations=chosen.optimizations)
    return quantize(float_graph(model, length=length), scheme,
                    calibration=calibration, method=method, leave=leave)


def float_graph(model: keras.Model, *, length: int | None = None) -> FloatGraph:
    """Converts a model to float32, from which `quantize` makes any scheme with rules.

    Args:
        model: as of `convert`.
        length: as of `convert`.

    Returns:
        The graph.

    Raises:
        ValueError: as of `convert`.
    """
    trained = models.quantized_layers_of(model)
    plain = models.plain_copy(model) if trained else model
    return FloatGraph(model=plain, length=length, trained=trained,
                 contents=converter.to_bytes(plain, length=length, outlier_channels={}))


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
        scheme: one of `SCHEMES` with rules.
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
    check_scheme(scheme)
    chosen = _SCHEMES[scheme]
    if method not in calibrate.METHODS:
        raise ValueError(f"`method` must be one of {calibrate.METHODS}. "
                         f"Received: method={method!r}")
    if not chosen.rules:
        raise ValueError("A quantized export is asked for; `convert` makes the others. "
                         f"Received: {scheme!r}")
    contents, found = prepared(graph, scheme, calibration=calibration), None
    if chosen.static:
        of = ranges.of_all if chosen.integer else ranges.of_products
        found = of(graph, calibration, method)
    rules = [*chosen.rules, *_in_8_bits(contents, chosen.rules)]
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
        scheme: one of `SCHEMES` with rules.
        calibration: as of `convert`; by it a graph of integers alone is wired.

    Returns:
        The `.tflite`; it computes what the graph does.

    Raises:
        ValueError: the scheme is unknown, or calibration is needed and missing.
    """
    check_scheme(scheme)
    return (ranges.for_integers(graph, calibration) if _SCHEMES[scheme].integer
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
    kinds = {rule.operation for rule in _SCHEMES[scheme].rules}
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
