"""Teachers of another family, vocabulary or casing, and those that cannot teach."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import tfopt
from tfopt import compress, data, inputs, model, tasks, train
from tfopt.backend import keras
from tfopt.pipeline import teachers, text_side
from tfopt.pipeline.options import Data
from tfopt.pipeline.teacher_options import Teacher

GOLDENS = Path(__file__).parents[1] / "goldens"
LABELS = ("bad", "fine", "good")
ROWS = [(f"{how} {what}", label) for how, label in (
    ("A great", "good"), ("bad BAD", "bad"), ("it is", "good"), ("Naïve a", "fine"))
    for what in ("film", "a film", "good film", "film it is")]
LOGITS = train.Distillation()


def saved(place: Path, family: str = "roberta", labels=LABELS, *, max_length=16,
          end=None, **settings) -> Path:
    """A teacher's directory; settings are those of its tokenizer."""
    source = GOLDENS / f"tiny_{family}"
    built = model.load(source, num_labels=len(labels), seed=3)
    model.save(built if end is None else keras.Model(built.inputs, end(built.output)),
               place)
    if settings:
        shutil.copy(source / "vocab.txt", place)
        (place / "tokenizer_config.json").write_text(json.dumps(settings))
        source = place
    text_side.write(place, data.tokenizer_from(source),
                    tasks.named("classification")(labels=labels), max_length)
    return place


@pytest.fixture
def tuning(tmp_path) -> tfopt.Job:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n"
                                              for text, label in ROWS))
    (tmp_path / "dev.tsv").write_text("text\tlabel\na film\tgood\n")
    (tmp_path / "more.txt").write_text("One more.\nand another, BAD one\n")
    return tfopt.Job(
        model=GOLDENS / "tiny_bert", train=file, dev=tmp_path / "dev.tsv",
        data=Data(max_length=12), out_dir=tmp_path / "new" / "out", recipe=compress.
        Recipe(passes=(compress.from_fields({"pass": "none"}),), exports=("float32",)))


def outputs(keras_model, encoded: data.Encoded) -> np.ndarray:
    return keras_model(inputs.build(
        encoded.ids, encoded.first_lengths, keras_model.input_names,
        pad_id=encoded.pad_id)).numpy()


def taught_by(tuning: tfopt.Job, path: Path, **options) -> tfopt.Job:
    return dataclasses.replace(tuning, teacher=Teacher(teacher=path, **options))


def learned(tuning: tfopt.Job, state: Path):
    """The batches of a student's training, and the teacher."""
    dataset = tuning.dataset()
    teacher = tuning.load_teacher(LOGITS, dataset)
    context = tuning.with_teacher(
        compress.Context(task=dataset.task, train=dataset.train), dataset, LOGITS,
        state, teacher)
    student = tuning.load(tuning.model, dataset.task)
    return context.training_inputs(student)[0], teacher, dataset


@pytest.mark.parametrize("kind", ["roberta", "cased"])
def test_each_model_reads_the_texts_by_its_own_tokenizer(kind, tuning, tmp_path):
    path = tmp_path / "teacher"
    if kind == "cased":
        saved(path, "bert", do_lower_case=False, strip_accents=False)
    else:
        saved(path, kind)
    batches, teacher, dataset = learned(taught_by(
        tuning, path, unlabelled=tmp_path / "more.txt"), tmp_path / "state")
    assert len(dataset.texts) == 16 + 2
    own = data.tokenizer_from(path)
    expected = outputs(teacher.model, own.encode(dataset.texts.texts, max_length=16))
    ids = dataset.tokenizer.encode(dataset.texts.texts, max_length=12).ids
    seen = 0
    for x, (_, logits) in batches.dataset():
        for row, visible, found in zip(x["input_ids"].numpy(),
                                       x["attention_mask"].numpy(), logits.numpy(),
                                       strict=True):
            example = ids.index(row[:visible.sum()].tolist())
            if ids.count(ids[example]) == 1:  # else of another text of the same words
                np.testing.assert_allclose(found, expected[example], atol=5e-3)
                seen += 1
    assert seen > 12
    assert list((tmp_path / "state").rglob("*.float16"))


def test_a_teacher_of_the_same_tokens_is_run_in_each_step(tuning, tmp_path):
    path = saved(tmp_path / "teacher", "bert")
    batches, teacher, dataset = learned(taught_by(tuning, path), tmp_path / "state")
    assert batches is dataset.transfer_set and teacher.tokenizer is None
    batches, *_ = learned(taught_by(tuning, path, cache_teacher_logits=True),
                          tmp_path / "state")
    assert batches is not dataset.transfer_set


def test_labels_in_another_order_are_mapped_by_name(tuning, tmp_path):
    plain = saved(tmp_path / "plain")
    turned = saved(tmp_path / "turned", labels=("fine", "good", "bad"))
    dataset = tuning.dataset()
    one, other = (taught_by(tuning, path).load_teacher(LOGITS, dataset).model
                  for path in (plain, turned))
    x = data.tokenizer_from(plain).encode(["a film", "so bad it is"])
    assert np.ptp(outputs(one, x)) > 1e-3
    np.testing.assert_allclose(outputs(other, x), outputs(one, x)[:, [2, 0, 1]],
                               atol=1e-5)


def test_pairs_are_read_by_each_model_too(tuning, tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(
            "text\tother\tlabel\n" + "".join(f"{text}\tIt is {label}\t{label}\n"
                                             for text, label in ROWS[::4]))
    path = saved(tmp_path / "teacher", "mpnet")
    paired = dataclasses.replace(taught_by(tuning, path), data=Data(
        max_length=14, text_pair_column="other"))
    batches, teacher, dataset = learned(paired, tmp_path / "state")
    own = data.tokenizer_from(path)
    expected = outputs(teacher.model, own.encode(
        dataset.texts.texts, dataset.texts.pairs, max_length=16))
    found = np.concatenate([logits for _, (_, logits) in batches.dataset()])
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()),
                               atol=5e-3)


def spoilt(place: Path, how: str) -> Path:
    saved(place)
    if how == "NaN":  # which no check of weights finds
        built = model.load(place)
        built.get_layer("pooler").bias.assign(np.full(32, 100.0))
        built.get_layer("classifier").kernel.assign(np.full([32, 3], 3e38))
        model.save(built, place)
    elif how == "half a model":
        (place / "model.keras").write_bytes(b"half")
    elif how == "no model":
        (place / "model.keras").unlink()
    elif how == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (place / name).unlink()
    elif how == "half a tokenizer":
        (place / "tokenizer.json").write_text('{"version": "1.0"')
    elif how == "half a task":
        (place / "task.json").write_text('{"task"')
    elif how == "another task":
        tasks.save(tasks.named("regression")(), place)
    elif how == "more labels":
        tasks.save(tasks.named("classification")(labels=(*LABELS, "odd")), place)
    elif how == "other labels":
        tasks.save(tasks.named("classification")(labels=("bad", "fine", "great")),
                   place)
    elif how == "more outputs":
        tasks.save(tasks.named("classification")(labels=LABELS), saved(
            place, labels=(*LABELS, "odd")))
    elif how == "more words":
        data.tokenizer_from("minilm").save(place)
    elif how == "no length":
        (place / "text.json").write_text('{"max_length": -1}')
    return place


@pytest.mark.parametrize(("how", "said"), [
    ("NaN", "must give finite numbers. Received: .*NaN or infinity for .* of 16 texts"),
    ("half a model", "Received: .*teacher/model.keras"),
    ("no model", "Received: .*teacher"),
    ("no tokenizer", "A tokenizer must be one of these files.*Received: .*teacher"),
    ("half a tokenizer", "cannot be read. Received: .*teacher/tokenizer.json"),
    ("half a task", "Received: .*teacher/task.json"),
    ("another task", "must be trained for .*'classification'.*Received: .*'regression"),
    ("more labels", "--teacher_dir must be trained for .*Received: .*'odd'"),
    ("other labels", "--teacher_dir must be trained for .*Received: .*'great'"),
    ("more outputs", "--teacher_dir=.*outputs of shape .*Received: .*4"),
    ("more words", "not have more entries than the model's embedding.*Received: 30522"),
    ("no length", "`max_length` must be .*Received: .*text.json"),
])
def test_what_cannot_teach_is_told_before_any_training(how, said, tuning, tmp_path,
                                                       monkeypatch):
    def fit(*_, **__):
        raise AssertionError("To be found before any training.")

    monkeypatch.setattr(train, "fit", fit)
    job = taught_by(tuning, spoilt(tmp_path / "teacher", how))
    with pytest.raises(ValueError, match=said) as caught:
        job.run()
    assert "\n" not in str(caught.value)
    assert not Path(job.out_dir).parent.exists()


def test_vectors_are_learned_from_other_tokens_of_the_same_width_alone(
        tuning, tmp_path):
    wide, other = tmp_path / "wide", tmp_path / "other"
    model.save(model.load(GOLDENS / "tiny_roberta",
                          head=tasks.named("embedding")().head()), other)
    data.tokenizer_from(GOLDENS / "tiny_roberta").save(other)
    model.save(model.build(model.EncoderConfig.uniform(
        hidden_size=24, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=64), tasks.named("embedding")().head()), wide)
    data.tokenizer_from(GOLDENS / "tiny_bert").save(wide)
    plain = tmp_path / "texts.txt"
    plain.write_text("a film\nBAD film\nsome more\n" * 5)
    for path in (other, wide):
        job = dataclasses.replace(
            taught_by(tuning, path, unlabelled=plain), task="embedding", train=None,
            dev=None)
        dataset, settings = job.dataset(), job.distillation()
        if path == wide:
            with pytest.raises(ValueError, match="as many numbers as the model, 32. "
                                                 f"Received: {wide}, which gives 24$"):
                job.load_teacher(settings, dataset)
            continue
        found = job.load_teacher(settings, dataset)
        context = job.with_teacher(compress.Context(
            task=dataset.task, train=dataset.train), dataset, settings, tmp_path, found)
        batches, _ = context.training_inputs(job.load(job.model, dataset.task))
        assert next(iter(batches.dataset()))[1][1].shape[-1] == 32


@pytest.mark.parametrize("weight", ["hidden_weight", "relations_weight"])
def test_states_of_other_tokens_are_not_learned(weight, tuning, tmp_path):
    job = taught_by(tuning, saved(tmp_path / "teacher"), **{weight: 1.0})
    with pytest.raises(ValueError, match="teacher that reads the same tokens; logits of"
                       f" texts from any .*vocabulary of .*{weight}=1.0"):
        job.run()


def test_a_softmax_at_the_end_is_seen_through(tuning, tmp_path, caplog):
    plain = saved(tmp_path / "plain")
    soft = saved(tmp_path / "soft", end=keras.layers.Softmax())
    found = []
    for path in (plain, soft):
        with caplog.at_level(logging.INFO, "absl"):
            batches, *_ = learned(taught_by(tuning, path), tmp_path / "state")
        found.append(train_targets(batches))
    np.testing.assert_allclose(*found, atol=3e-3)
    assert "gives probabilities: it teaches by their logarithms" in caplog.text


def train_targets(batches) -> np.ndarray:
    """What the teacher's softmax says at temperature 2, in the batches' order."""
    rows = np.concatenate([logits for _, (_, logits) in batches.dataset()]) / 2
    rows = np.exp(rows - rows.max(axis=1, keepdims=True))
    return rows / rows.sum(axis=1, keepdims=True)


def test_whether_two_tokenizers_read_alike_is_told(tuning, tmp_path):
    dataset = tuning.dataset()
    assert teachers.reads_otherwise(dataset.tokenizer, dataset) == ""
    same = data.tokenizer_from(GOLDENS / "tiny_bert")
    assert teachers.reads_otherwise(same, dataset) == ""
    other = data.tokenizer_from(GOLDENS / "tiny_mpnet")
    assert "which has a vocabulary of" in teachers.reads_otherwise(other, dataset)
    cased = data.tokenizer_from(saved(tmp_path / "cased", "bert", do_lower_case=False))
    assert teachers.reads_otherwise(cased, dataset).startswith(
        "which reads 'A great film' otherwise")
