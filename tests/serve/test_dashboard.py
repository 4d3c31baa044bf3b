"""The dashboard and the alert rules ask for metrics, and labels, that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tfopt.serve import monitor as monitors
from tfopt.serve.monitor import Monitor, Observation
from tfopt.serve.reference import Reference

HOUSE = Path(monitors.__file__).parent
SEEN = [Observation(0.97, 0.1, 12, 1, True, "good"),
        Observation(0.4, 1.0, 30, 0, False, "bad")]
# Words of PromQL before a bracket, and what it keeps labels in.
LABELS = re.compile(r"\bby \(([^)]*)\)|\{([^}]*)\}")


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """Name of a sample in /metrics -> its labels, once all was counted."""
    monitor = Monitor(window=4)
    monitor.loaded("m", "1x", True, Reference.of(SEEN * 4))
    monitor.request("m", "1x", 200, 0.002, 0.001)
    monitor.answers("m", "1x", SEEN * 2)
    monitor.rejected("late")
    monitor.shadow(True)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(monitor.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> list[str]:
    panels = json.loads((HOUSE / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def alerts() -> list[str]:
    text = (HOUSE / "alerts.yml").read_text()
    assert text.count("- alert:") == text.count("expr:") == text.count("summary:")
    return re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)


def wrong(expression: str, samples: dict[str, set[str]]) -> list[str]:
    """What an expression asks for and there is not."""
    names = re.findall(r"\btfopt_\w+", expression)
    found = [name for name in names if name not in samples]
    known = {label for name in names for label in samples.get(name, ())}
    for by, match in LABELS.findall(expression):
        asked = re.findall(r"(\w+) *=", match) if match else re.findall(r"\w+", by)
        found += [label for label in asked if label not in known]
    return found


@pytest.mark.parametrize("expressions", [dashboard, alerts])
def test_every_expression_asks_for_what_metrics_have(expressions, samples):
    assert len(expressions()) > 5
    assert {expression: found for expression in expressions()
            if (found := wrong(expression, samples))
            or not re.search(r"\btfopt_", expression)
            or expression.count("(") != expression.count(")")} == {}


def test_the_check_finds_what_is_wrong(samples):
    assert wrong('sum by (colour) (tfopt_loaded{variant="1x"})', samples) == [
        "tfopt_loaded", "colour", "variant"]


def test_the_dashboard_shows_every_metric(samples):
    asked = " ".join(dashboard())
    families = {re.sub(r"_(bucket|sum|count|total|created)$", "", name)
                for name in samples}
    assert {name for name in families if not re.search(rf"\b{name}", asked)} == set()


def test_places_do_not_overlap_and_labels_of_legends_are_there(samples):
    found = json.loads((HOUSE / "dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"])
              for panel in found["panels"]]
    assert len({*places}) == len(places)
    assert [variable["name"] for variable in found["templating"]["list"]] == [
        "datasource", "model"]
    for panel in found["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert any(label in labels for name, labels in samples.items()
                           if name in target["expr"])
