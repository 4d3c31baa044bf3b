"""What figures mean: their unit, which way is better, how they are shown.

Those of files and times are here; a task brings its own (`Task.metrics`).
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """What a figure means.

    Attributes:
        name: as in the rows.
        unit: "" for a plain ratio or count.
        better: "higher", "lower", or "" where neither is.
        show: how it stands in a table: a factor and a format, such as 4.6 MB for bytes.
    """

    name: str
    unit: str
    better: str
    show: tuple[float, str] = (1.0, "{:.3g}")


_MB = (1e-6, "{:.2f} MB")
_MS = (1.0, "{:.2f}")
_COUNT = (1.0, "{:,.0f}")
METRICS = {metric.name: metric for metric in (
    Metric("latency_p50_ms", "ms", "lower", _MS),
    Metric("latency_spread", "fraction", "lower", (100.0, "{:.0f} %")),
    Metric("latency_p90_ms", "ms", "lower", _MS),
    *(Metric(f"latency_t{count}_ms", "ms", "lower", _MS)
      for count in (16, 32, 64, 128)),
    Metric("throughput_per_s", "texts/s", "higher", (1.0, "{:.0f}")),
    Metric("speedup", "", "higher", (1.0, "{:.2f}x")),
    Metric("num_threads", "", "lower", _COUNT),
    Metric("file_bytes", "bytes", "lower", _MB),
    Metric("gzip_bytes", "bytes", "lower", _MB),
    Metric("peak_rss_bytes", "bytes", "lower", _MB),
    Metric("parameters", "", "lower", _COUNT),
    Metric("nonzeros", "", "lower", _COUNT),
    Metric("bits", "bits", "lower", _COUNT),
    *(Metric(ratio, "", "lower", (1.0, "{:.4f}"))
      for ratio in ("alpha", "beta", "gamma")),
)}


def shown(value: float, of: Metric) -> str:
    """A figure as it stands in a table."""
    factor, form = of.show
    return form.format(value * factor)
