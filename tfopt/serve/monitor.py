"""What a server counts and times, as Prometheus reads it: `/metrics`.

    monitor = Monitor()
    monitor.loaded("intents", "3x", True, reference=Reference.read("runs/a/3x"))
    with monitor.in_flight.track_inprogress():
        ...
    monitor.request("intents", "3x", 200, seconds=0.004, queue_seconds=0.001)
    monitor.answers("intents", "3x", observations)
    monitor.text()   # the body of an answer to GET /metrics

No text, and no word of a client's, becomes a label: models and variants are those that
were loaded, others are "". Needs prometheus-client (the extra `serve`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tfopt.serve.observation import Observation
from tfopt.serve.reference import Drift, Reference

__all__ = ["CONTENT_TYPE", "Monitor", "Observation"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
WINDOW = 300  # answers of a variant that are compared with dev's
_SECONDS = tuple(0.0005 * 2 ** step for step in range(16))  # 0.5 ms to 16 s
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_NATS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
_TOKENS = (4, 8, 16, 32, 64, 128, 256, 512)
_VARIANT = ("model", "variant")


class Monitor:
    """The metrics of one server; any number of threads may count.

    Args:
        window: answers of a variant that drift is taken of.

    Attributes:
        registry: that all metrics are in.
        in_flight: gauge of requests that came and have no answer yet.
    """

    def __init__(self, window: int = WINDOW):
        self.registry = CollectorRegistry()
        self._window = window
        self._lock = threading.Lock()  # for drift, and for what is loaded
        self._drift: dict[tuple[str, str], Drift] = {}
        self._known: set[tuple[str, str]] = set()
        self.in_flight = Gauge("tfopt_in_flight", "Requests without an answer yet.",
                               registry=self.registry)
        self._requests = self._counter("requests", "Requests that were answered.",
                                       *_VARIANT, "code")
        self._seconds = self._histogram(
            "request_seconds", "From a request's arrival to its answer.", _SECONDS)
        self._queue_seconds = self._histogram(
            "queue_seconds", "From a request's arrival to the model's start.", _SECONDS)
        self._confidence = self._histogram(
            "confidence", "Probability of what is answered.", _SHARES)
        self._entropy = self._histogram(
            "entropy", "Entropy of an answer's probabilities, in nats.", _NATS)
        self._tokens = self._histogram("tokens", "Tokens of a text.", _TOKENS)
        self._predictions = self._counter("predictions", "Answers, by their label.",
                                          *_VARIANT, "label")
        self._unknown = self._counter(
            "unknown_pieces", "Tokens that the vocabulary cannot spell.", *_VARIANT)
        self._truncated = self._counter("truncated", "Texts that were cut.", *_VARIANT)
        self._rejected = self._counter("rejected", "Requests that were refused.",
                                       "reason")
        self._shadow = self._counter(
            "shadow", "Answers that the shadow gave too, or not.", "agrees")
        self._loaded = self._gauge("variant_loaded", "Whether a variant is loaded.",
                                   *_VARIANT)
        self._distance = self._gauge(
            "drift", f"Distance of the last {window} answers from dev's, in [0, 1].",
            *_VARIANT, "signal")
        self._threshold = self._gauge(
            "drift_threshold", "Distance above which it is drift.", *_VARIANT, "signal")

    def loaded(self, model: str, variant: str, there: bool,
               reference: Reference | None = None) -> None:
        """Says that a variant is loaded, or is gone.

        Args:
            model: its name.
            variant: the rung's name.
            there: whether it is loaded now.
            reference: of its bundle; None watches no drift.
        """
        key = (model, variant)
        with self._lock:
            self._known.add(key)
            self._drift.pop(key, None)
            if there and reference is not None:
                self._drift[key] = Drift(reference, self._window)
        self._loaded.labels(*key).set(there)

    def request(self, model: str, variant: str, code: int, seconds: float,
                queue_seconds: float | None = None) -> None:
        """Counts a request that was answered, rightly or with an error.

        Args:
            model: that was asked for.
            variant: that answered; "" for none.
            code: HTTP status.
            seconds: from arrival to answer.
            queue_seconds: from arrival to the model's start; None where it never did.
        """
        key = self._key(model, variant)
        self._requests.labels(*key, str(code)).inc()
        self._seconds.labels(*key).observe(seconds)
        if queue_seconds is not None:
            self._queue_seconds.labels(*key).observe(queue_seconds)

    def answers(self, model: str, variant: str, observations: Sequence[Observation]
                ) -> None:
        """Counts answers to texts.

        Args:
            model: that answered.
            variant: its rung.
            observations: of each text.
        """
        key = self._key(model, variant)
        confidence, entropy = self._confidence.labels(*key), self._entropy.labels(*key)
        tokens = self._tokens.labels(*key)
        for seen in observations:
            tokens.observe(seen.tokens)
            if seen.confidence is not None:
                confidence.observe(seen.confidence)
            if seen.entropy is not None:
                entropy.observe(seen.entropy)
            for word in seen.words:
                self._predictions.labels(*key, word).inc()
        self._unknown.labels(*key).inc(sum(seen.unknown for seen in observations))
        self._truncated.labels(*key).inc(sum(seen.truncated for seen in observations))
        with self._lock:
            drift = self._drift.get(key)
            if drift is None:
                return
            for seen in observations:
                drift.add(seen)

    def rejected(self, reason: str) -> None:
        """Counts a request that was refused; `reason` is one of the server's few."""
        self._rejected.labels(reason).inc()

    def shadow(self, agrees: bool) -> None:
        """Counts an answer that the shadow gave too, or did not."""
        self._shadow.labels("true" if agrees else "false").inc()

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format (`CONTENT_TYPE`)."""
        with self._lock:
            found = {key: drift.values() for key, drift in self._drift.items()}
        for gauge, place in ((self._distance, 0), (self._threshold, 1)):
            gauge.clear()  # of variants that are gone
            for key, values in found.items():
                for signal, pair in values.items():
                    gauge.labels(*key, signal).set(pair[place])
        return generate_latest(self.registry)

    def _key(self, model: str, variant: str) -> tuple[str, str]:
        """The labels of a variant; of one that nobody loaded, empty ones."""
        key = (model, variant)
        if key in self._known:
            return key
        return (model if any(model == name for name, _ in [*self._known]) else "", "")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"tfopt_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"tfopt_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"tfopt_{name}", about, _VARIANT, buckets=buckets,
                         registry=self.registry)
