"""Structures timed before they are cut: real files of random weights."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model
from tfopt.export import tflite
from tfopt.measure import latency
from tfopt.measure.structures import StructureTimer
from tfopt.model import Head

WHOLE = model.EncoderConfig.uniform(hidden_size=64, num_layers=3, num_heads=4,
                                    intermediate_size=512, vocab_size=103,
                                    max_positions=64)
SMALL = WHOLE.replace(num_heads=(1,), intermediate_sizes=(64,))


def test_a_smaller_structure_is_faster():
    timer = StructureTimer([12, 60, 30], num_threads=1, rounds=3, texts=3)
    before, after = timer(WHOLE, SMALL)
    assert 0 < after < before < 1e3


def test_the_files_are_of_the_structures_and_the_whole_is_exported_once(monkeypatch):
    exported, asked = [], []
    monkeypatch.setattr(tflite, "convert", lambda built, scheme, **fields: (
        exported.append((model.config_of(built), model.head_of(built), scheme, fields))
        or b"file"))

    def measure(files, ids, first_lengths, **fields):
        asked.append((ids, first_lengths, fields))
        assert [file.read_bytes() for file in files.values()] == [b"file"] * 2
        return {"whole": {"latency_p50_ms": 2.0}, "small": {"latency_p50_ms": 1.0}}

    monkeypatch.setattr(latency, "measure", measure)
    timer = StructureTimer([9, 4], scheme="static_wi8_ai8", length=16, num_threads=3,
                           rounds=5, texts=7, head=Head(outputs=3))
    for _ in range(2):
        assert timer(WHOLE, SMALL) == (2.0, 1.0)
    assert [config.num_layers for config, *_ in exported] == [3, 1, 1]
    _, head, scheme, fields = exported[0]
    assert (head.outputs, scheme, fields["length"]) == (3, "static_wi8_ai8", 16)
    assert [len(example["input_ids"][0]) for example in fields["calibration"]] == [4, 9]
    ids, first_lengths, fields = asked[0]
    assert list(map(len, ids)) == first_lengths == [4, 9]
    assert max(map(max, ids)) < 103
    assert fields == {"num_threads": 3, "rounds": 5, "texts": 7, "token_counts": ()}


def test_a_scheme_without_ranges_needs_no_texts(monkeypatch):
    seen = []
    monkeypatch.setattr(tflite, "convert", lambda built, scheme, **fields: (
        seen.append(fields["calibration"]) or b"file"))
    monkeypatch.setattr(latency, "measure", lambda files, *_, **__: dict.fromkeys(
        files, {"latency_p50_ms": 1.0}))
    StructureTimer([9])(WHOLE, SMALL)
    assert seen == [None, None]


@pytest.mark.parametrize("lengths", [[3], [3, 20, 3]])
def test_texts_are_the_same_for_both(monkeypatch, lengths):
    seen = []
    monkeypatch.setattr(tflite, "convert", lambda *_, **__: b"file")
    monkeypatch.setattr(latency, "measure", lambda files, ids, *_, **__: (
        seen.append(ids) or dict.fromkeys(files, {"latency_p50_ms": 1.0})))
    timer = StructureTimer(lengths)
    timer(WHOLE, SMALL.replace(vocab_size=50))
    timer(WHOLE, SMALL.replace(vocab_size=50))
    assert seen[0] == seen[1] and max(map(max, seen[0])) < 50
    assert np.all(np.diff(list(map(len, seen[0]))) >= 0)
