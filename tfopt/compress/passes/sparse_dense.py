"""Replaces pruned Dense layers by sparse ones where these are faster on this machine.

After a pass that prunes: zeros save time only in a form that leaves them out
(`tfopt.sparse`), and only where there are enough of them. It serves models that
TensorFlow runs; a `.tflite` has the zeros again (`export.densify`).

`Outcome.facts` has of each Dense that was looked at "backend", "block", "speedup"
(how many times as fast as dense, timed once more after the trial), "tried" (that of
each form in the trial) and "milliseconds" (of one product by each form, dense among
them). Notes and reasons to skip have them, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_nonzeros
from tfopt.compress.layer_selection import choose_layers, skipped
from tfopt.sparse import BACKENDS, BLOCKS, Choice, choose
from tfopt.sparse import SparseDense as Layer
from tfopt.types import Expression, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseDense(Pass):
    """Stores kernels without their zeros.

    Attributes:
        backend: one of `sparse.BACKENDS`; "auto" times them, and leaves a layer dense
            where no other is faster.
        block: b of forms of blocks; None for the largest whose blocks are nearly full.
        rows: of x in a usual product, batch times tokens, by which "auto" decides; of
            several, each must be faster.
        only: regular expressions of layer names; the layers meant.
        leave: regular expressions; layers to leave as they are.
    """

    backend: str = "auto"
    block: int | None = None
    rows: tuple[int, ...] = (128,)
    only: tuple[Expression, ...] = ()
    leave: tuple[Expression, ...] = ()

    stage = Stage.NUMERICS
    may_touch_nothing = True
    for_tensorflow = True

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_fields(self, {
            "backend": (self.backend in ("auto", *BACKENDS),
                        f"one of {('auto', *BACKENDS)}"),
            "block": (self.block is None or self.block in BLOCKS, f"one of {BLOCKS}"),
            "rows": (self.rows and min(self.rows) >= 1, "at least 1"),
        })

    @classmethod
    def example(cls) -> SparseDense:
        """Every kernel by rows, whether that pays or not."""
        return cls(backend="csr")

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Replaces the layers.

        Raises:
            ValueError: no layer is chosen, or one cannot be stored so.
        """
        made, slower, facts = {}, {}, {}
        nonzeros = count_nonzeros(model)
        for layer in choose_layers(model, self.only, self.leave):
            if not isinstance(layer, keras.layers.Dense):
                slower[layer.name] = "no Dense layer"
                continue
            choice = self._choose(layer)
            facts[layer.name] = dataclasses.asdict(choice)
            if self.backend == "auto" and choice.backend == "dense":
                slower[layer.name] = _said(layer, facts[layer.name])
                continue
            made[layer.name] = Layer.from_dense(layer, choice.backend, choice.block)
        notes = [_note(name, facts[name]) for name in made]
        if made:
            model = keras.models.clone_model(
                model, clone_function=lambda layer: made.get(layer.name, layer))
        else:
            notes = ["No layer is faster sparse on this machine: all stay dense"]
        return Outcome(model=model, touched=tuple(made), facts=facts,
                       skipped=skipped(model, tuple(made)) | slower,
                       figures={"nonzeros": float(nonzeros)}, notes=tuple(notes))

    def _choose(self, layer: keras.layers.Dense) -> Choice:
        if self.backend != "auto":
            return Choice(backend=self.backend, block=self.block)
        return choose(layer.kernel.numpy(), block=self.block, rows=self.rows,
                      dtype=layer.compute_dtype)


def _said(layer: keras.layers.Dense, found: Mapping) -> str:
    """Why a layer stays dense."""
    zeros = np.mean(layer.kernel.numpy() == 0)
    if not found["tried"]:
        return f"{zeros:.0%} zeros, too few for any sparse form"
    tried = ", ".join(f"{name} {speed:.2f}x{_ms(found, name)}"
                      for name, speed in found["tried"].items())
    return (f"{zeros:.0%} zeros, not faster than dense{_ms(found, 'dense')}: {tried}")


def _note(name: str, found: Mapping) -> str:
    """What a layer became, and how much faster that is."""
    block = f" {found['block']}x{found['block']}" if found["block"] else ""
    if not found["tried"]:
        return f"{name}: {found['backend']}{block}"
    form = f"{found['backend']} {found['block']}" if block else found["backend"]
    return (f"{name}: {found['backend']}{block}{_ms(found, form)}, "
            f"{found['speedup']:.2f}x of dense{_ms(found, 'dense')}")


def _ms(found: Mapping, form: str) -> str:
    """The time of one product by a form, where the trial tells."""
    taken = found["milliseconds"].get(form)
    return "" if taken is None else f" ({taken:.3g} ms)"
