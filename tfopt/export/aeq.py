"""Float `.tflite` -> quantized `.tflite`, by rules; the one door to ai-edge-quantizer.

A rule says what becomes of the operations of a kind whose output has a certain name;
of two that fit, the later holds. Weights are quantized symmetrically, one scale for
each output channel, row of a table or block: q = round(w / s), s = max|w| / (2^(b-1) -
1). Activations are quantized asymmetrically, one scale a tensor, between given ranges.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from tfopt.export.schemes import BLOCKS
from tfopt.types import check_fields

# Tensor name -> the lowest and highest value.
Ranges = Mapping[str, tuple[float, float]]
MODES = ("float", "dynamic", "weight_only", "static")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of some operations.

    Attributes:
        operation: their kind, such as "FULLY_CONNECTED"; "*" for all.
        mode: "float" leaves them; "dynamic" quantizes the weights, and the runtime the
            activations, a scale for each row; "weight_only" widens the weights again at
            run time; "static" computes in integers between calibrated ranges.
        pattern: regular expression, searched in the name of the operation's output.
        weight_bits: 8 or 4.
        activation_bits: of "static": 8, asymmetric, or 16, symmetric.
        block: weights along the input that share a scale; None for all of them.
        one_scale: whether all weights share one.
    """

    operation: str
    mode: str
    pattern: str = ""
    weight_bits: int = 8
    activation_bits: int = 8
    block: int | None = None
    one_scale: bool = False

    def __post_init__(self):
        """Checks the mode and the block.

        Raises:
            ValueError: one is not known.
        """
        check_fields(self, {"mode": (self.mode in MODES, f"one of {MODES}"),
                            "block": (self.block in BLOCKS, f"one of {BLOCKS}")})


def quantize(contents: bytes, rules: Sequence[Rule], ranges: Ranges | None = None
             ) -> bytes:
    """Quantizes.

    Args:
        contents: a `.tflite` in float32.
        rules: what to do with which operations.
        ranges: of every activation that a static rule quantizes.

    Returns:
        The quantized `.tflite`.

    Raises:
        ValueError: an operation cannot be quantized so, or a range is missing.
    """
    with warnings.catch_warnings():
        # Of scipy and others that come with it, and of the calibrator it starts.
        for kind in (DeprecationWarning, RuntimeWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        return _quantize(contents, rules, ranges or {})


def _quantize(contents, rules, ranges) -> bytes:
    # Imported by those who quantize: it brings scipy and more.
    from ai_edge_quantizer import quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    for number, rule in enumerate(rules):
        _add(recipe, rule, number)
    known = {name: {"min": np.array([lowest], np.float32),
                    "max": np.array([highest], np.float32)}
             for name, (lowest, highest) in ranges.items()}
    verbosity = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of rules that overwrite others
    try:
        # Not all of its progress bars can be turned off.
        with contextlib.redirect_stderr(io.StringIO()):
            found = quantizer.Quantizer(
                contents, recipe.get_quantization_recipe()).quantize(
                    known, enable_progress_bar=False, enable_progress_report=False)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError("The model cannot be quantized by these rules. Received: "
                         f"{rules[-1]}: {error}") from error
    finally:
        logging.disable(verbosity)
    return bytes(found.quantized_model)


def _add(recipe, rule: Rule, number: int) -> None:
    from ai_edge_quantizer import qtyping

    operation = qtyping.TFLOperationName(rule.operation)
    # With a number in it, for of equal patterns the first would keep its place.
    pattern = f".*({rule.pattern})(?#{number})"
    granularity = qtyping.QuantGranularity[
        "TENSORWISE" if rule.one_scale else
        "CHANNELWISE" if rule.block is None else f"BLOCKWISE_{rule.block}"]
    if rule.mode == "float":
        recipe.add_quantization_config(pattern, operation, algorithm_key="no_quantize")
    elif rule.mode == "static":
        recipe.add_static_config(pattern, operation, rule.activation_bits,
                                 rule.weight_bits, granularity)
    else:
        add = {"dynamic": recipe.add_dynamic_config,
               "weight_only": recipe.add_weight_only_config}[rule.mode]
        add(pattern, operation, rule.weight_bits, granularity)

