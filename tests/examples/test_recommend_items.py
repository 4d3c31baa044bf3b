"""The nearest items: the lookup, a person's vector, vectors that are kept."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest
import recommend

from tfopt import data, model
from tfopt.export import tflite
from tfopt.serve import Bundle
from tfopt.tasks.embedding import Embedding

COURSES = data.read(recommend.ITEMS, data.Columns(label="theme"))


def test_the_nearest_are_those_of_the_highest_cosines():
    random = np.random.default_rng(0)
    vectors = recommend.unit(random.normal(size=[200, 16]))
    one = recommend.unit(random.normal(size=16))
    known = [int(np.argmax(vectors @ one)), 3]
    found = recommend.nearest(vectors, one, 10, known)
    order = [at for at in np.argsort(-(vectors @ one)) if at not in known]
    assert [at for at, _ in found] == order[:10]
    np.testing.assert_allclose([cosine for _, cosine in found],
                               (vectors @ one)[order[:10]])


def test_no_more_is_recommended_than_there_is():
    vectors = np.eye(3, dtype=np.float32)
    assert [at for at, _ in recommend.nearest(vectors, vectors[0], 10, [0])] == [1, 2]
    assert recommend.nearest(vectors, vectors[0], 10, [0, 1, 2]) == []


def test_the_newest_counts_most_in_a_person():
    liked = np.eye(3, dtype=np.float32)
    one = recommend.person(liked, half_life=1.0)
    np.testing.assert_allclose(one, np.array([1, 2, 4]) / np.sqrt(21), rtol=1e-6)
    np.testing.assert_allclose(recommend.person(liked[:1], 3.0), liked[0])
    assert one.dtype == np.float32


@pytest.fixture(scope="module")
def bundle(vectors):
    return Bundle.open(vectors, num_threads=1)


def test_many_items_are_embedded_as_one_by_one(bundle, monkeypatch):
    monkeypatch.setattr(recommend, "CHUNK", 5)
    found = recommend.embed(bundle, COURSES.texts[:12])
    np.testing.assert_allclose(found, np.concatenate(
        [bundle.embed([text]) for text in COURSES.texts[:12]]), atol=1e-6)


def test_vectors_are_kept_for_the_same_items_and_bundle(bundle, tmp_path, monkeypatch):
    path, asked = str(tmp_path / "vectors.npz"), []
    embed = recommend.embed
    monkeypatch.setattr(recommend, "embed", lambda bundle, texts: (
        asked.append(texts), embed(bundle, texts))[1])
    first = recommend.kept_or_embedded(bundle, ["good", "bad"], path)
    np.testing.assert_array_equal(
        recommend.kept_or_embedded(bundle, ["good", "bad"], path), first)
    assert asked == [["good", "bad"]]
    assert recommend.kept_or_embedded(bundle, ["good"], path).shape == (1, 8)
    assert asked == [["good", "bad"], ["good"]]


def test_the_command_recommends_what_is_not_known_yet(vectors, tmp_path, capsys):
    liked = COURSES.texts[:2]
    flags = [f"--bundle={vectors}", *(f"--liked={text}" for text in liked),
             "--count=200", f"--vectors={tmp_path / 'vectors.npz'}"]
    assert recommend.main(flags) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert sorted(text for _, text in rows) == sorted(COURSES.texts[2:])
    cosines = [float(cosine) for cosine, _ in rows]
    assert cosines == sorted(cosines, reverse=True)
    assert (tmp_path / "vectors.npz").exists()


def test_the_benchmark_gives_figures_and_says_when_they_are_not_met(vectors, capsys,
                                                                   monkeypatch):
    for most_ms, status in [(1e9, 0), (0.0, 2)]:
        monkeypatch.setattr(recommend, "MOST_MS", most_ms)
        assert recommend.main([f"--bundle={vectors}", "--benchmark=50"]) == status
        found = json.loads(capsys.readouterr().out)
        figures = found["figures"]
        assert (figures["items"], figures["width"]) == (50, 8)
        assert 0 < figures["lookup_p50_ms"] <= figures["lookup_p90_ms"]
        assert 0 < figures["text_p50_ms"] <= figures["text_p90_ms"]
        assert found["environment"]["cores"] >= 1


def test_mistakes_are_one_sentence(vectors, moods, tmp_path, monkeypatch):
    bundle, liked = f"--bundle={vectors}", "--liked=good"
    items, other = tmp_path / "items.tsv", tmp_path / "other.npz"
    items.write_text("text\ngood\n \n")
    np.savez(other, something=np.ones(3))
    for given, said in [
            ([bundle], "--liked must be a text"),
            ([bundle, "--liked= "], "--liked must be a text"),
            ([bundle, liked, "--count=0"], "--count must be above 0.* 0, None"),
            ([bundle, liked, "--half_life=nan"], "--half_life.*nan"),
            ([bundle, "--benchmark=200001"], "200,000.*200001"),
            ([bundle, "--benchmark=0"], "--benchmark 1 to"),
            ([bundle, liked, f"--items={items}"], f"{items}:3: a text must not be"),
            ([bundle, liked, f"--vectors={other}"], f"--vectors must be new.*{other}"),
            ([f"--bundle={moods}", liked], "embedding|vectors")]:
        with pytest.raises(ValueError, match=said):
            recommend.main(given)
    monkeypatch.setattr(recommend, "MOST_ITEMS", 5)
    with pytest.raises(ValueError, match="--items may have 5. Received: 108"):
        recommend.main([bundle, liked])


def test_the_courses_that_come_along_are_of_themes_of_one_size():
    assert len(set(COURSES.texts)) == len(COURSES) == 108
    assert set(collections.Counter(COURSES.labels).values()) == {9}


@pytest.mark.slow
def test_the_packaged_checkpoint_finds_courses_of_the_same_theme(tmp_path):
    """By chance it would be 8 in 107."""
    task, tokenizer = Embedding(), data.tokenizer_from("minilm")
    Bundle.write(tmp_path, task=task, tokenizer=tokenizer, max_length=64,
                 scheme="float32",
                 model=tflite.convert(model.load("minilm", head=task.head())))
    vectors = recommend.embed(Bundle.open(tmp_path), COURSES.texts)
    same = [COURSES.labels[other] == COURSES.labels[at] for at in range(len(COURSES))
            for other, _ in recommend.nearest(vectors, vectors[at], 5, [at])]
    assert np.mean(same) > 0.5
