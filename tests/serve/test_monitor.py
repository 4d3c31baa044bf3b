"""Metrics: names, labels and values as Prometheus reads them; none of a client's."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tfopt.serve.monitor import Monitor, Observation
from tfopt.serve.reference import Reference

SEEN = [Observation(0.97, 0.1, 12, 1, True, "good"),
        Observation(0.4, 1.0, 30, 0, False, "bad")]


def samples(monitor):
    """(name, values of labels, sorted) -> value of everything in /metrics."""
    return {(sample.name, tuple(sorted(sample.labels.values()))): sample.value
            for family in text_string_to_metric_families(monitor.text().decode())
            for sample in family.samples}


def test_what_was_counted_is_in_the_text():
    monitor = Monitor()
    monitor.loaded("m", "3x", True)
    monitor.request("m", "3x", 200, 0.003, 0.0004)
    monitor.request("m", "3x", 503, 0.001)
    monitor.answers("m", "3x", SEEN)
    monitor.rejected("late")
    monitor.shadow(True)
    monitor.shadow(False)
    monitor.shadow(True)
    with monitor.in_flight.track_inprogress():
        found = samples(monitor)
    key = ("m", "3x")
    for (name, labels), value in {
            ("requests_total", (*key, "200")): 1, ("requests_total", (*key, "503")): 1,
            ("request_seconds_count", key): 2, ("queue_seconds_count", key): 1,
            ("request_seconds_sum", key): 0.004, ("tokens_sum", key): 42,
            ("confidence_bucket", (*key, "0.5")): 1, ("entropy_count", key): 2,
            ("predictions_total", (*key, "good")): 1,
            ("unknown_pieces_total", key): 1, ("truncated_total", key): 1,
            ("rejected_total", ("late",)): 1, ("shadow_total", ("true",)): 2,
            ("shadow_total", ("false",)): 1, ("variant_loaded", key): 1,
            ("in_flight", ()): 1}.items():
        assert found[f"tfopt_{name}", tuple(sorted(labels))] == pytest.approx(value)
    assert found["tfopt_request_seconds_bucket", ("0.0005", "3x", "m")] == 0
    assert samples(monitor)["tfopt_in_flight", ()] == 0
    monitor.loaded("m", "3x", False)
    assert samples(monitor)["tfopt_variant_loaded", ("3x", "m")] == 0


def test_no_word_of_a_client_becomes_a_label():
    monitor = Monitor()
    monitor.loaded("m", "1x", True)
    for number in range(20):
        monitor.request(f"secret {number}", "1x", 404, 0.001)
        monitor.request("m", f"secret {number}", 404, 0.001)
    found = samples(monitor)
    assert found["tfopt_requests_total", ("", "", "404")] == 20
    assert found["tfopt_requests_total", ("", "404", "m")] == 20
    assert "secret" not in monitor.text().decode()


def test_a_task_without_classes_counts_tokens_alone():
    monitor = Monitor()
    monitor.loaded("m", "1x", True)
    monitor.answers("m", "1x", [Observation(None, None, 9, 0)])
    found = samples(monitor)
    assert found["tfopt_tokens_sum", ("1x", "m")] == 9
    assert found["tfopt_confidence_count", ("1x", "m")] == 0
    assert not any(name == "tfopt_predictions_total" for name, _ in found)


def test_drift_is_there_once_a_window_is_full_and_as_long_as_its_variant():
    monitor = Monitor(window=20)
    monitor.loaded("m", "1x", True, Reference.of(SEEN * 20))
    monitor.answers("m", "1x", SEEN * 9)
    assert not any(name == "tfopt_drift" for name, _ in samples(monitor))
    monitor.answers("m", "1x", SEEN)
    found = samples(monitor)
    signals = {label: value for (name, labels), value in found.items()
               if name == "tfopt_drift" for label in {*labels} - {"m", "1x"}}
    assert set(signals) == {"confidence", "entropy", "tokens", "unknown", "label"}
    assert max(signals.values()) == 0.0
    monitor.answers("m", "1x", SEEN[:1] * 20)
    found = samples(monitor)
    assert found["tfopt_drift", ("1x", "label", "m")] == 0.5
    assert 0 < found["tfopt_drift_threshold", ("1x", "label", "m")] < 0.5
    monitor.loaded("m", "1x", False)
    assert not any(name == "tfopt_drift" for name, _ in samples(monitor))
