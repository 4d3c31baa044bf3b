"""Words with tags on the whole road: files -> a bundle whose answers are entities."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfopt
from tfopt import compress, data, model, pipeline, train
from tfopt.pipeline import timing


def sentences(count: int) -> str:
    """CoNLL lines: a film has a name behind "the", of one word or two."""
    random = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        words = random.choice(["a", "it", "is", "bad", "good", "not"], 3)
        name = ["great film", "movie"][random.integers(2)].split()
        tags = ["B-film", "I-film"][:len(name)]
        lines += [f"{word}\tO" for word in (*words[:2], "the")]
        lines += [f"{word}\t{tag}" for word, tag in zip(name, tags, strict=True)]
        lines += [f"{words[2]}\tO", ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def road(tmp_path_factory, tiny_dir):
    place = tmp_path_factory.mktemp("tokens")
    model.save(model.build(model.EncoderConfig.uniform(
        hidden_size=32, num_layers=1, num_heads=4, intermediate_size=32, vocab_size=103,
        max_positions=32, initializer_range=0.1)), place / "model")
    data.tokenizer_from(tiny_dir).save(place / "model")
    (place / "train.conll").write_text(sentences(96))
    (place / "dev.conll").write_text(
        sentences(12) + "\nbad\tB-ship\n" + "good\tO\n" * 13 + "movie\tB-film\n")
    recipe = compress.Recipe(passes=tuple(map(compress.from_fields, (
        {"pass": "structured", "keep": 0.6, "examples": 32, "epochs": 0,
         "neurons_multiple": 1},
        {"pass": "quantization_aware"}))),
        exports=("dynamic_wi8_afp32",), distillation=tfopt.Distillation(
            hidden_weight=0.1))
    job = tfopt.Job(
        task="token_classification", model=place / "model", train=place / "train.conll",
        dev=place / "dev.conll", recipe=recipe, out_dir=place / "out",
        data=pipeline.Data(max_length=16),
        settings=train.Settings(epochs=6, learning_rate=3e-3),
        batching=pipeline.Batching(batch_size=8),
        measuring=pipeline.Measuring(num_threads=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "times", lambda artifacts, *given, **fields: {
            name: {"latency_p50_ms": 1.0} for name in artifacts})
        yield job, job.run()


def test_a_bundle_of_words_names_places_in_a_text(road):
    job, result = road
    figures = {(row.artifact, row.split): row.value for row in result.rows
               if row.metric == "entity_f1"}
    assert figures["keras_float32", "dev"] > 0.8
    assert figures["dynamic_wi8_afp32", "dev"] > 0.7
    text = "it is the great  film not"
    answer, = result.bundle.predict([text])
    span, = answer["spans"]
    assert span == {"label": "film", "start": 10, "end": 21, "text": "great  film",
                    "score": span["score"]}
    assert 0.3 < span["score"] <= 1
    assert result.bundle.outputs([text])[0].shape == (8, 3)
    with pytest.raises(ValueError, match="Received: pairs"):
        result.bundle.predict(["a"], ["b"])


def test_the_report_says_what_was_cut_and_what_train_lacks(road):
    _, result = road
    assert any("words are cut off with their tags" in note for note in result.notes)
    assert any("B-ship" in note for note in result.notes)
    said = json.loads((result.out_dir / "report.json").read_text())
    assert {"film", "ship"} <= set(said["by_class"]["dynamic_wi8_afp32"]["dev"])
    assert said["by_class"]["dynamic_wi8_afp32"]["dev"]["ship"][
        "support"] == 1
