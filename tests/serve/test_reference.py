"""References and drift: what is kept of dev, what is drift, what is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfopt import data, tasks
from tfopt.serve import Bundle, manifest
from tfopt.serve.observation import Observation, observe
from tfopt.serve.reference import MOST_TEXTS, Drift, Reference, distances

TASK = tasks.named("classification")(labels=("bad", "fine", "good"))


def some(count, seed, confident=8.0, tokens=20, unknown=0.01, labels="abc"):
    """Observations of texts as a model of three classes would answer them."""
    random = np.random.default_rng(seed)
    return [Observation(float(share), float(-np.log(share)), 4 + int(length),
                        int(random.random() < unknown), False,
                        str(random.choice([*labels])))
            for share, length in zip(random.beta(confident, 2, count),
                                     random.poisson(tokens, count), strict=True)]


def drift_of(reference, seen, window=300):
    return filled(Drift(reference, window), seen)


def filled(drift, seen):
    for each in seen:
        drift.add(each)
    return drift


def test_what_is_watched_of_an_answer():
    outputs = np.log([[0.2, 0.5, 0.3], [1.0, 1.0, 2.0]])
    one, other = observe(TASK, outputs, [[2, 1, 1, 3], [2, 3]], 1, [True, False])
    assert one == Observation(pytest.approx(0.5), pytest.approx(
        -sum(p * np.log(p) for p in (0.2, 0.5, 0.3))), 4, 2, True, "fine")
    assert (other.label, other.unknown, other.truncated) == ("good", 0, False)
    regression = tasks.named("regression")()
    assert observe(regression, np.ones([1, 1]), [[2, 1, 3]], None) == [
        Observation(None, None, 3, 0, False, None)]
    sure, = observe(TASK, np.array([[0.0, 900.0, -900.0]]), [[2]], None)
    assert (sure.confidence, sure.entropy) == (1.0, 0.0)  # no NaN of 0 log 0


def test_a_bundle_keeps_its_reference_by_its_hash(tmp_path, tiny_dir):
    reference = Reference.of(some(2500, 0))
    assert len(reference.label) == MOST_TEXTS == len(reference.numbers["tokens"])
    write = {"task": TASK, "tokenizer": data.tokenizer_from(tiny_dir),
             "max_length": 12, "scheme": "float32", "model": b"no model"}
    Bundle.write(tmp_path, reference=reference, **write)
    found = Reference.read(tmp_path)
    assert found.labels == reference.labels == ("a", "b", "c")
    np.testing.assert_array_equal(found.label, reference.label)
    for name, values in reference.numbers.items():
        np.testing.assert_allclose(found.numbers[name], values, atol=1e-6)
    assert manifest.REFERENCE_FILE in manifest.read(tmp_path)["files"]
    (tmp_path / manifest.REFERENCE_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"damaged.*reference\.json"):
        manifest.read(tmp_path)
    Bundle.write(tmp_path, **write)  # another model, of which none was taken
    assert Reference.read(tmp_path) is None
    assert manifest.REFERENCE_FILE not in manifest.read(tmp_path)["files"]


@pytest.mark.parametrize("edit, message", [
    ({"format": 2}, "of format 1"), ({"labels": "abc"}, "`labels` must be a list"),
    ({"label": [9]}, "places in `labels`"), ({"label": [True]}, "places in `labels`"),
    ({"tokens": None}, "`tokens` must be a list"), ({"unknown": [2]}, "from 0 to 1"),
    ({"confidence": []}, "`confidence`"), ({"label": []}, "of the same texts"),
    ({"entropy": [0.1]}, "of the same texts")])
def test_a_damaged_reference_is_named(tmp_path, edit, message):
    Reference.of(some(8, 0)).write(tmp_path)
    file = tmp_path / "reference.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | edit))
    with pytest.raises(ValueError, match=message) as error:
        Reference.read(tmp_path)
    assert str(file) in str(error.value)


def test_distances_are_those_of_their_definitions():
    one, other = np.array([2, 1, 1]), np.array([0, 2, 2])
    assert distances(one, other, ordered=True) == 0.5
    assert distances(one, other, ordered=False) == 0.5
    assert distances(one, 3 * one, ordered=True) == 0.0
    # Of the order alone: the mass that has left the first bin went to the last.
    assert distances(np.array([4, 0, 4]), np.array([0, 4, 4]), ordered=True) == 0.5
    assert distances(np.array([[4, 0], [0, 4]]), np.array([4, 0]),
                     ordered=False).tolist() == [0.0, 1.0]


def test_clean_windows_raise_few_alarms_and_drift_is_found():
    drift, clean = drift_of(Reference.of(some(1200, 0)), []), 0
    for seed in range(1, 41):
        clean += bool(filled(drift, some(300, seed)).alarms())
    assert clean <= 2
    for signal, change in (
            ("confidence", {"confident": 3.0}), ("tokens", {"tokens": 8}),
            ("unknown", {"unknown": 0.3}), ("label", {"labels": "a"}),
            ("label", {"labels": "z"})):
        assert signal in filled(drift, some(300, 99, **change)).alarms()


def test_only_the_last_window_counts_and_nothing_before_it_is_full():
    reference = Reference.of(some(900, 0))
    seen = some(200, 1, confident=2.0)
    assert drift_of(reference, seen).values() == {}
    drift = drift_of(reference, [*seen, *some(300, 2)])
    fresh = drift_of(reference, some(300, 2))
    assert drift.values() == fresh.values() and not drift.alarms()


def test_a_small_dev_set_is_trusted_less():
    wide, narrow = (drift_of(Reference.of(some(count, 0)), some(300, 1)).values()
                    for count in (60, 2000))
    for signal in ("confidence", "tokens", "label"):
        assert wide[signal][1] > 1.3 * narrow[signal][1]


def test_a_task_without_classes_is_watched_by_its_texts():
    seen = [Observation(None, None, 5 + n % 7, 0) for n in range(100)]
    values = drift_of(Reference.of(seen), seen, 50).values()
    assert set(values) == {"tokens", "unknown"}


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="window=0"):
        Drift(Reference.of(some(8, 0)), 0)
    with pytest.raises(ValueError, match="Received: none"):
        Reference.of([])
