"""Many texts: what one by one gives, in their order; errors in place; what resumes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle, answer_lines, bulk
from tfopt.serve.map_batches import Answers

TASK = tasks.named("classification")(labels=("bad", "fine", "good"))
WORDS = ("good", "bad", "it", "was", "a", "film", "really", "not", "great")
TEXTS = [(" ".join(WORDS[(3 * row + word) % 9] for word in range(1 + row * 7 % 11)),
          None) for row in range(50)]


@pytest.fixture(scope="module")
def place(tiny_dir, tmp_path_factory):
    found = tmp_path_factory.mktemp("bulk") / "run"
    Bundle.write(found, task=TASK, tokenizer=data.tokenizer_from(tiny_dir),
                 max_length=12, scheme="float32", model=tflite.convert(model.build(
                     model.EncoderConfig.uniform(
                         hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8,
                         vocab_size=103, max_positions=64, initializer_range=0.5),
                     TASK.head())))
    return found


@pytest.fixture
def small(monkeypatch):
    """Blocks and parts of a few texts."""
    monkeypatch.setattr(bulk, "_BLOCK", 16)
    monkeypatch.setattr(bulk, "_PART", 5)
    monkeypatch.setattr(bulk, "_AHEAD", 1)


def expected(place, texts):
    bundle = Bundle.open(place, num_threads=1)
    return [answer_lines.fields_of(text, pair, bundle.predict(
        [text], None if pair is None else [pair])[0], 3) for text, pair in texts]


def test_answers_are_those_of_one_by_one_and_a_killed_run_goes_on(
        place, tmp_path, small, monkeypatch):
    output, blocks = tmp_path / "answers.jsonl", []
    in_order = bulk._in_order

    def killed(parts):
        if len(blocks) == 2:
            raise KeyboardInterrupt
        blocks.append(sum(len(rows) for rows, _ in parts))
        return in_order(parts)

    monkeypatch.setattr(bulk, "_in_order", killed)
    with pytest.raises(KeyboardInterrupt):
        bulk.answer(place, TEXTS, output, processes=2)
    assert blocks == [16, 16] and not output.exists()
    partial = tmp_path / "answers.jsonl.partial"
    with open(partial, "a") as file:
        file.write('{"text": "cut o')  # as of a process that was killed while writing
    with pytest.raises(ValueError, match=f"same texts and bundle.*Received: {partial}"):
        bulk.answer(place, TEXTS[1:], output)
    blocks.clear()
    monkeypatch.setattr(bulk, "_in_order", lambda parts: (
        blocks.append(sum(len(rows) for rows, _ in parts)) or in_order(parts)))
    done = bulk.answer(place, TEXTS, output, processes=1)
    assert blocks == [16, 2]  # the other 32 were there
    assert done == bulk.Answered(50, 0, "")
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert found == expected(place, TEXTS)
    assert len({line["score"] for line in found}) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
    with pytest.raises(ValueError, match="must be new. Received: .*answers.jsonl"):
        bulk.answer(place, TEXTS, output)


def test_errors_stand_in_their_places_and_pairs_are_read(place, tmp_path, small):
    texts = [("good", "a film"), ("  ", "bad"), ("bad", "it was"), ("\ud800", "a")]
    done = bulk.answer(place, texts, tmp_path / "out.jsonl", processes=1)
    assert (done.count, done.failed) == (4, 2)
    assert "must not be empty" in done.first_error
    found = [json.loads(line)
             for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(line)[:3] for line in found] == [
        ["text", "pair", "label"], ["text", "pair", "error"],
        ["text", "pair", "label"], ["text", "pair", "error"]]
    assert [found[0], found[2]] == expected(place, [texts[0], texts[2]])


def test_columns_of_a_batch_get_answers_beside_them(place):
    mapped = Answers(place, pair="second")
    batch = {"text": np.array(["good", " ", "bad"], object), "id": np.arange(3),
             "second": np.array(["a film", "it", "it was"], object)}
    found = mapped(batch)
    one, other = expected(place, [("good", "a film"), ("bad", "it was")])
    assert found["label"].tolist() == [one["label"], "", other["label"]]
    assert found["score"][[0, 2]] == pytest.approx([one["score"], other["score"]],
                                                   abs=1e-4)
    assert np.isnan(found["score"][1]) and "empty" in found["error"][1]
    assert found["error"][0] == "" and found["id"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"columns \['second'\].*Received: \['text'\]"):
        mapped({"text": batch["text"]})


def test_all_texts_or_none_are_of_a_pair(place, tmp_path):
    with pytest.raises(ValueError, match="Received: 1 alone of 2"):
        bulk.answer(place, [("a", None), ("b", "c")], tmp_path / "out.jsonl")
    assert bulk.answers(Bundle.open(place, num_threads=1), []) == []


def test_what_was_written_must_be_there(place, tmp_path, small, monkeypatch):
    """A file that was cut is not filled with zeros; other labels are other answers."""
    output, in_order = tmp_path / "out.jsonl", bulk._in_order
    done = []

    def killed(parts):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return in_order(parts)

    monkeypatch.setattr(bulk, "_in_order", killed)
    with pytest.raises(KeyboardInterrupt):
        bulk.answer(place, TEXTS, output, processes=1)
    monkeypatch.setattr(bulk, "_in_order", in_order)
    renamed = tmp_path / "renamed"
    shutil.copytree(place, renamed)
    fields = json.loads((renamed / "bundle.json").read_text())
    (renamed / "bundle.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="same texts and bundle"):
        bulk.answer(renamed, TEXTS, output, processes=1)
    partial = tmp_path / "out.jsonl.partial"
    partial.unlink()
    with pytest.raises(ValueError, match=r"and whole; remove both.*of 0 bytes"):
        bulk.answer(place, TEXTS, output, processes=1)
    partial.unlink()
    (tmp_path / "out.jsonl.partial.json").unlink()
    assert bulk.answer(place, TEXTS, output, processes=1).count == len(TEXTS)


def test_one_run_at_a_time_writes_a_file(place, tmp_path):
    with bulk._begun(tmp_path / "out.jsonl", "1"), pytest.raises(
            ValueError, match="One run at a time.*out.jsonl.partial, in use"):
        bulk.answer(place, TEXTS, tmp_path / "out.jsonl", processes=1)


def test_parts_are_of_like_lengths_the_longest_first():
    rows = list(bulk._parts([("a" * (row * 37 % 1000), None) for row in range(1000)]))
    assert sorted(row for part in rows for row in part) == list(range(1000))
    ends = [[len("a" * (row * 37 % 1000)) for row in part] for part in rows]
    assert all(min(one) >= max(other) for one, other in zip(ends, ends[1:],
                                                            strict=False))


def test_what_is_no_bundle_is_found_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="must be a directory"):
        bulk.answer(tmp_path / "none", TEXTS, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
