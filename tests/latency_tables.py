"""Latency tables made up for tests of searches."""

from __future__ import annotations

from tfopt.measure.latency_table import Curve, LatencyTable


def heads_alone(config) -> LatencyTable:
    """A table by which a head takes 1 ms, and all else nothing."""
    def curves(most, ms):
        return dict.fromkeys(("inner", "last"), Curve(
            sizes=(0, most), ms=((0.0, 0.0), (ms, ms))))

    return LatencyTable(
        environment={"num_threads": 1, "hidden_size": config.hidden_size,
                     "head_size": config.head_size, "activation": config.activation},
        tokens=(1, 64), first_ms=(0.0, 0.0), layer_ms=(0.0, 0.0), spread=(1.0,),
        attention=curves(config.num_heads[0], float(config.num_heads[0])),
        ffn=curves(config.intermediate_sizes[0], 0.0),
        interaction=((0, ((0.0, 0.0),)),))
