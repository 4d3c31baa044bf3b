"""Vectors of texts by a whole run: without any label, and with pairs and scores."""

from __future__ import annotations

import dataclasses
import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scripts import constant_times

import tfopt
from tfopt import compress, data, model, pipeline
from tfopt.export.interpreter import Interpreter
from tfopt.model import layer_names
from tfopt.pipeline import timing
from tfopt.tasks.embedding import Embedding

WORDS = ["bad", "awful", "not", "it", "is", "a", "good", "great", "really", "film"]
TEXTS = ["a great film", "bad", "it was not really good, this movie!", ""]
QUANTIZED = "dynamic_wi8_afp32"


def words(chance: random.Random) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 9)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """40 texts, and 12 pairs whose score is the share of words that both have."""
    place, chance = tmp_path_factory.mktemp("vectors"), random.Random(0)
    (place / "texts.txt").write_text("\n".join(words(chance) for _ in range(40)))
    rows = ["text\tother\tscore"]
    for _ in range(12):
        one, two = words(chance), words(chance)
        both = {*one.split()} & {*two.split()}
        rows.append(f"{one}\t{two}\t{5 * len(both) / len({*(one + two).split()})}")
    (place / "pairs.tsv").write_text("\n".join(rows) + "\n")
    return place


@pytest.fixture(scope="module")
def job(files, tiny_dir) -> tfopt.Job:
    """Structured, QAT and int8 by texts alone; pairs judge."""
    recipe = compress.Recipe(passes=tuple(map(compress.from_fields, [
        {"pass": "structured", "keep": 0.6, "examples": 16, "neurons_multiple": 1,
         "epochs": 0},
        {"pass": "quantization_aware", "scheme": QUANTIZED}])),
        distillation=tfopt.Distillation(hidden_weight=1.0),
        exports=(QUANTIZED,))
    return tfopt.Job(
        model=tiny_dir, task="embedding", recipe=recipe,
        teacher=pipeline.Teacher(unlabelled=files / "texts.txt"),
        dev=files / "pairs.tsv", out_dir=files / "out",
        data=pipeline.Data(max_length=16, text_pair_column="other",
                           label_column="score"),
        settings=tfopt.train.Settings(epochs=2, learning_rate=1e-3),
        measuring=pipeline.Measuring(smoke=True, num_threads=1))


@pytest.fixture(scope="module", autouse=True)
def untimed():
    """Nothing here is about times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "times", constant_times)
        yield


@pytest.fixture(scope="module")
def result(job, untimed):
    return job.run()


def figures(result, metric):
    return {row.artifact: row.value for row in result.rows if row.metric == metric}


def keras_vectors(place, texts, tokenizer):
    keras_model = model.load(place)
    rows = []
    for text in texts:
        encoded = tokenizer.encode([text], max_length=16)
        rows.append(keras_model(data.Batches(encoded).dataset()
                                .get_single_element()).numpy()[0])
    return Embedding().vectors(np.stack(rows))


def test_no_label_is_needed_and_the_checkpoint_is_the_baseline(job, result, tiny_dir):
    baseline = model.load(job.out_dir / "baseline")
    head = {"head": Embedding().head()}
    for own, published in zip(baseline.get_weights(), model.load(
            tiny_dir, **head).get_weights(), strict=True):
        np.testing.assert_array_equal(own, published)
    assert layer_names.CLASSIFIER not in {layer.name for layer in baseline.layers}
    assert figures(result, "cosine_to_baseline")["keras_float32"] == pytest.approx(1)
    for name in (QUANTIZED, f"unpruned_{QUANTIZED}"):
        assert 0.5 < figures(result, "cosine_to_baseline")[name] < 1
        assert -1 <= figures(result, "spearman")[name] <= 1
    assert figures(result, "cosine_to_baseline")[f"unpruned_{QUANTIZED}"] > 0.99
    assert figures(result, "parameters")[QUANTIZED] < 0.95 * figures(
        result, "parameters")["keras_float32"]


def test_the_bundle_gives_the_unit_vectors_of_the_keras_model(job, result):
    bundle = result.bundle
    found = bundle.embed(TEXTS)
    assert found.shape == (4, 32) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.ones(4), atol=1e-6)
    expected = keras_vectors(job.out_dir / "keras", TEXTS, bundle.tokenizer)
    assert np.sum(found * expected, axis=1).min() > 0.98
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(bundle.embed, [TEXTS] * 8):
            np.testing.assert_array_equal(again, found)
    assert bundle.embed([]).shape == (0, 32)


def test_answers_are_vectors_and_of_pairs_cosines(result):
    bundle = result.bundle
    vectors = bundle.embed(TEXTS[:2])
    answers = bundle.predict(TEXTS[:2])
    np.testing.assert_allclose([each["embedding"] for each in answers], vectors,
                               atol=1e-6)
    score, = bundle.predict(TEXTS[:1], TEXTS[1:2])
    assert score == {"score": pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)}
    with pytest.raises(ValueError, match="Received: 1 texts, 2 pairs"):
        bundle.predict(TEXTS[:1], TEXTS[:2])


def test_without_any_file_the_embedded_texts_do(job, tmp_path):
    """int8 takes no training at all; vectors are judged by the baseline's."""
    found = dataclasses.replace(
        job, dev=None, teacher=pipeline.Teacher(), recipe="int8",
        data=pipeline.Data(max_length=16), out_dir=tmp_path / "out",
        targets=pipeline.Targets(max_accuracy_drop=0.5)).run()
    assert found.met
    assert figures(found, "cosine_to_baseline")[QUANTIZED] > 0.99
    assert not figures(found, "spearman")
    assert not list((tmp_path / "out").rglob("events.*"))
    bundle = found.bundle
    whole = Interpreter(tmp_path / "out" / "exports" / "float32.tflite", num_threads=1,
                        encoder=bundle.tokenizer, max_length=16)
    np.testing.assert_allclose(
        Embedding().vectors(whole.predict(TEXTS)), keras_vectors(
            tmp_path / "out" / "keras", TEXTS, bundle.tokenizer), atol=1e-4)
    fields = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert fields["task"]["width"] == 32 and fields["task"]["normalize"]
    assert fields["figures"]["cosine_to_baseline"] > 0.99


def test_pairs_with_scores_are_learned(job, files):
    pairs = files / "pairs.tsv"
    tuning = pipeline.FineTuning(
        model=job.model, task="embedding", train=pairs, dev=pairs, data=job.data,
        batching=pipeline.Batching(batch_size=8),
        settings=tfopt.train.Settings(epochs=8, learning_rate=3e-3))
    dataset = tuning.dataset()
    assert dataset.task.learns_from_labels and dataset.report["dev"].paired
    keras_model, history = tuning.train_model(dataset)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    corpus = data.read(pairs, job.data.columns(Embedding.label_form))
    texts = [text for row in zip(corpus.texts, corpus.pairs, strict=True)
             for text in row]
    vectors = np.stack([keras_model(data.Batches(dataset.tokenizer.encode(
        [text], max_length=16)).dataset().get_single_element()).numpy()[0]
        for text in texts])
    found = dataset.task.quality(vectors, dataset.task.targets(corpus))
    best = max(epoch["val_spearman"] for epoch in history)
    assert found["spearman"] == pytest.approx(best, abs=1e-3) and best > 0.6


def test_what_needs_labels_is_refused_without(job, files, tmp_path):
    with pytest.raises(ValueError, match="distil_hard_weight needs labels"):
        dataclasses.replace(job, teacher=pipeline.Teacher(hard_weight=1.0),
                            out_dir=tmp_path / "out").run()
    (files / "wrong.tsv").write_text("text\tother\tscore\na\tb\talike\n")
    with pytest.raises(ValueError, match="wrong.tsv:2: a score must be a finite"):
        dataclasses.replace(job, dev=files / "wrong.tsv",
                            out_dir=tmp_path / "out").run()


def test_texts_stand_each_for_itself_whatever_columns_a_file_has(files):
    columns = data.Columns(text="text", pair="other", label="score")
    found = data.read_each(files / "pairs.tsv", columns)
    assert len(found) == 24 and found.pairs is None
    assert len(data.read_each(files / "texts.txt", columns)) == 40
    (files / "one.csv").write_text("text\nwhere is it\n")
    assert data.read_each(files / "one.csv", columns).texts == ["where is it"]
    (files / "two.jsonl").write_text('{"text": "a", "other": "b"}\n')
    assert data.read_each(files / "two.jsonl", columns).texts == ["a", "b"]
