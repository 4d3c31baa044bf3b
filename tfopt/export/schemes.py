"""The export schemes: what each one's numbers are, for files and for training alike.

A scheme's name says what it does, by the grammar

    float32 | float16 | sparse_float32
    MODE_wiBITS[bBLOCK]_aTYPE

MODE: how a product is computed. "dynamic": in integers, each row of activations
quantized at run time, between its own extremes. "static": in integers, between ranges
that are known before, of calibration or of training. "integer": the same, and all other
operations too, with int8 logits out. "weight_only": in float; the weights are widened
at run time.

wiBITS: weights are integers of 8 or 4 bits, with a scale for each output channel of a
kernel and each row of a table. bBLOCK: a scale for each BLOCK of them along the input
instead; what does not come in whole blocks has 8 bits.

aTYPE: activations are float32 (afp32), or integers of 8 or 16 bits (ai8, ai16).

From one record follow the rules of the file (`export.tflite`) and what is rounded while
training (`compress.qat.points`). A new scheme is one more row of `_ROWS`.
"""

from __future__ import annotations

import dataclasses
import re

from tfopt.types import check_fields

BLOCKS = (None, 32, 64, 128, 256)
_FLOAT_MODE, _INTEGER_MODE = "float", "integer"
_OF_MODE = {"dynamic": (None,), "weight_only": (None,), "static": (8, 16),
            _INTEGER_MODE: (8,)}  # bits of activations; None: float32
_GRAMMAR = re.compile(
    r"(?P<mode>[a-z_]+)_wi(?P<weight_bits>\d+)(b(?P<block>\d+))?"
    r"_a(fp32|i(?P<activation_bits>\d+))")
_TABLE_BLOCK = 32  # LiteRT looks rows of 4 bits up in blocks alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """How weights are stored, and how what computes with them does.

    Attributes:
        mode: "dynamic", "weight_only" or "static".
        weight_bits: 8 or 4.
        block: weights along the input that share a scale; None for all of them.
        activation_bits: of "static", 8 or 16; else None.
    """

    mode: str
    weight_bits: int = 8
    block: int | None = None
    activation_bits: int | None = None

    def in_8_bits(self) -> Numbers:
        """The same with weights of 8 bits, a scale for each output channel."""
        return dataclasses.replace(self, weight_bits=8, block=None)

    def fitting(self, width: int) -> Numbers:
        """The same for weights of a width along the input: 8 bits beside blocks."""
        return self.in_8_bits() if self.block and width % self.block else self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """One way to export; made from its name.

    Attributes:
        name: by the module's grammar.
        mode: as in the name; "float" where nothing is quantized.
        weight_bits: 8 or 4.
        block: weights that share a scale; None for those of an output channel.
        activation_bits: 8 or 16; None for float32.
        optimizations: of TensorFlow's converter (`tf.lite.Optimize`), by name.
        types: the ones it may store weights in, by name.
    """

    name: str
    mode: str = _FLOAT_MODE
    weight_bits: int = 8
    block: int | None = None
    activation_bits: int | None = None
    optimizations: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def __post_init__(self):
        """Checks that the parts go together.

        Raises:
            ValueError: they do not.
        """
        known = _OF_MODE | {_FLOAT_MODE: (None,)}
        check_fields(self, {
            "mode": (self.mode in known, f"one of {tuple(known)}"),
            "weight_bits": (self.weight_bits in (4, 8), "4 or 8"),
            "block": (self.block in BLOCKS, f"one of {BLOCKS}"),
            "activation_bits": (self.activation_bits in known.get(self.mode, ()),
                                f"one of {known.get(self.mode)} in this mode"),
        })

    @classmethod
    def from_name(cls, name: str) -> Scheme:
        """Parses the name of a quantized scheme.

        Args:
            name: such as "dynamic_wi4b32_afp32".

        Raises:
            ValueError: it is not by the grammar.
        """
        parts = _GRAMMAR.fullmatch(name)
        if parts is None:
            raise ValueError("A scheme must be named MODE_wiBITS[bBLOCK]_aTYPE. "
                             f"Received: {name!r}")
        numbers = {key: int(value) for key, value in parts.groupdict().items()
                   if key != "mode" and value}
        weight_bits = numbers.pop("weight_bits")
        return cls(name=name, mode=parts["mode"], weight_bits=weight_bits,
                   block=numbers.get("block"),
                   activation_bits=numbers.get("activation_bits"))

    @property
    def is_quantized(self) -> bool:
        """Whether it is made from a float graph by rules."""
        return self.mode != _FLOAT_MODE

    @property
    def integer(self) -> bool:
        """Whether all operations are in integers, with an int8 output."""
        return self.mode == _INTEGER_MODE

    @property
    def needs_calibration(self) -> bool:
        """Whether it needs the ranges of activations."""
        return self.activation_bits is not None

    @property
    def is_trainable(self) -> bool:
        """Whether a model can be trained with its rounding, which knows no 16 bits."""
        return self.is_quantized and self.activation_bits in (None, 8)

    @property
    def product(self) -> Numbers:
        """The numbers of matrix products."""
        mode = "static" if self.integer else self.mode
        return Numbers(mode=mode, weight_bits=self.weight_bits, block=self.block,
                       activation_bits=self.activation_bits)

    @property
    def ffn_product(self) -> Numbers:
        """The numbers of an ffn's products.

        To these some tokens give numbers a hundred times all others; of one range of 8
        bits for all tokens nothing would be left, so that each row has its own.
        """
        if self.integer or self.activation_bits != 8:
            return self.product
        return dataclasses.replace(self.product, mode="dynamic", activation_bits=None)

    @property
    def table(self) -> Numbers:
        """The numbers of embedding tables, whose rows are widened when looked up."""
        block = _TABLE_BLOCK if self.weight_bits == 4 else None
        return Numbers(mode="dynamic", weight_bits=self.weight_bits,
                       block=self.block or block)


_ROWS = (
    Scheme(name="float32"),
    # Weights kept in half the bytes; widened to float32 when loaded on a CPU.
    Scheme(name="float16", optimizations=("DEFAULT",), types=("float16",)),
    *map(Scheme.from_name, (
        "dynamic_wi8_afp32",
        "weight_only_wi8_afp32",
        "static_wi8_ai8",
        "static_wi8_ai16",  # for accelerators: slow on CPUs
        "integer_wi8_ai8",  # for accelerators and microcontrollers
        "dynamic_wi4b32_afp32",
        "dynamic_wi4_afp32",
    )),
    # Pruned kernels as their nonzeros and where they are; it saves bytes, not time. Of
    # int8 kernels LiteRT's XNNPACK computes wrong numbers so, without a word.
    Scheme(name="sparse_float32", optimizations=("EXPERIMENTAL_SPARSITY",)),
)
_SCHEMES = {scheme.name: scheme for scheme in _ROWS}
SCHEMES = tuple(_SCHEMES)


def get(name: str) -> Scheme:
    """The scheme of a name.

    Raises:
        ValueError: it is not known.
    """
    if name not in _SCHEMES:
        raise ValueError(f"An export must be one of {SCHEMES}. Received: {name!r}")
    return _SCHEMES[name]


def is_quantized(name: str) -> bool:
    """Whether a scheme is made by `tflite.quantize` from a float graph."""
    return get(name).is_quantized


def needs_calibration(name: str) -> bool:
    """Whether a scheme needs the ranges of activations."""
    return get(name).needs_calibration


def trainable() -> tuple[str, ...]:
    """The names of the schemes that a model can be trained for."""
    return tuple(name for name, scheme in _SCHEMES.items() if scheme.is_trainable)
