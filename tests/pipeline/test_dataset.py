"""What files become, what is said of them, and what does not go together."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import tfopt
from tfopt import compress, data, model, pipeline, tasks, train
from tfopt.cli import artifacts
from tfopt.pipeline import checks, stages, text_side
from tfopt.pipeline.export_options import Exports
from tfopt.pipeline.options import Data, Files, Tables
from tfopt.pipeline.teacher_options import Teacher

ROWS = "a great film\tgood\nbad bad\tbad\nit is\tgood\n" * 4


def write(path: Path, rows: str = ROWS) -> Path:
    path.write_text("text\tlabel\n" + rows)
    return path


@pytest.fixture
def files(tmp_path, tiny_dir) -> Files:
    return Files(model=tiny_dir, train=write(tmp_path / "train.tsv"),
                 dev=write(tmp_path / "dev.tsv", "a good film it is\tgood\n"))


def notes_of(files: Files, **options) -> list[str]:
    return pipeline.Dataset.read(files, **options).notes


def test_of_plain_files_nothing_is_said(files):
    assert notes_of(files, data=Data(max_length=16)) == []


def test_what_a_reader_must_know_is_said_once(files, tmp_path):
    write(tmp_path / "train.tsv", ROWS + "\tgood\n" + "film " * 9 + "\tGood\n")
    write(tmp_path / "dev.tsv", "bad bad\tbad\nit was a good film really\tgood\n")
    (tmp_path / "more.txt").write_text("film " * 9)
    assert notes_of(files, data=Data(max_length=7), teacher=Teacher(
        unlabelled=tmp_path / "more.txt")) == [
        "Labels that differ in letters' case or spaces alone are different classes: "
        "'Good', 'good'.",
        "1 of train's 14 texts are empty.",
        "1 of dev's 2 texts are in train, too: figures on dev are too good for new "
        "texts.",
        "1 texts without labels, judged by the teacher.",
        "1 of train's 14 texts are cut to 7 tokens (--max_length).",
        "1 of dev's 2 texts are cut to 7 tokens (--max_length).",
        "1 of the unlabelled set's 1 texts are cut to 7 tokens (--max_length)."]


def test_a_label_whose_only_example_is_held_out_stays_a_label(files, tmp_path):
    write(tmp_path / "train.tsv", ROWS + "it is a film\trare\n")
    whole = data.read(tmp_path / "train.tsv")
    seed = next(seed for seed in range(99)
                if "rare" in whole.split(0.1, seed)[1].labels)
    found = pipeline.Dataset.read(dataclasses.replace(files, dev=None),
                                  settings=train.Settings(seed=seed))
    assert found.task.labels == ("bad", "good", "rare")
    assert found.notes[-1] == ("All examples of these labels were held out by chance, "
                               "and none is left to learn from: rare.")


def test_labels_that_train_lacks_count_as_wrong_and_are_said(files, tmp_path):
    write(tmp_path / "dev.tsv", "a film\tgood\nit was\tnew\nbad film\tbad\n"
          "film\tnewer\n")
    write(tmp_path / "test.tsv", "a film\tgood\nit was\tnew\n")
    found = pipeline.Dataset.read(dataclasses.replace(
        files, test=tmp_path / "test.tsv"))
    assert found.task.labels == ("bad", "fine", "good")
    assert found.notes == [
        "2 of dev's 4 examples have labels that train lacks and no answer can be: they "
        "count as wrong. 'new', 'newer'.",
        "1 of test's 2 examples have labels that train lacks and no answer can be: "
        "they count as wrong. 'new'."]
    assert found.report["dev"].targets == [2, -1, 0, -1]
    # An epoch is the best by those that can be right: a loss needs a class.
    assert sorted(found.choose.targets.tolist()) == [0, 2]
    right = [[0, 0, 9], [0, 0, 9], [9, 0, 0], [0, 9, 0]]
    assert found.task.quality(right, found.report["dev"].targets)["accuracy"] == 0.5


@pytest.mark.parametrize("name", ["dev", "test"])
def test_a_file_of_other_labels_alone_is_refused(name, files, tmp_path):
    write(tmp_path / f"{name}.tsv", "a film\t1\nit was\t0\n")
    with pytest.raises(ValueError, match=f"{name}.tsv:2: .*fine, good. Received: '1'$"):
        pipeline.Dataset.read(dataclasses.replace(
            files, **{name: tmp_path / f"{name}.tsv"}))


def tuned(place: Path, tiny_dir: Path, *, positions: int = 64, **settings) -> Path:
    """A fine-tuned model's directory; settings are those of its tokenizer."""
    model.save(model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=positions), model.Head(outputs=3)), place)
    shutil.copy(tiny_dir / "vocab.txt", place)
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    text_side.write(place, data.tokenizer_from(place),
                    tasks.named("classification")(labels=("bad", "fine", "good")), 16)
    return place


@pytest.fixture
def job(files, tmp_path) -> tfopt.Job:
    recipe = compress.Recipe(passes=(compress.from_fields({"pass": "none"}),),
                             exports=("static_wi8_ai8",))
    return tfopt.Job(model=files.model, train=files.train, dev=files.dev, recipe=recipe,
                     data=Data(max_length=16), out_dir=tmp_path / "new" / "out")


@pytest.fixture
def no_training(monkeypatch):
    def fit(*_, **__):
        raise AssertionError("What is wrong was to be found before any training.")

    monkeypatch.setattr(train, "fit", fit)


def assert_refused(job: tfopt.Job, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}"):
        job.run()
    assert not Path(job.out_dir).parent.exists()


@pytest.mark.usefixtures("no_training")
class TestBeforeAnyWork:
    @pytest.mark.parametrize(("change", "said"), [
        ({"exports": Exports(calibration_texts=1)},
         "static_wi8_ai8, needs at least 2 .*Received: --calibration_texts=1, of which "
         "the train file has 1$"),
        ({"exports": Exports(calibration_texts=0)}, "--calibration_texts=0, of which"),
        ({"exports": Exports(export_length=65)},
         "the model's 64 positions. Received: --export_length=65$"),
        ({"data": Data(max_length=65)}, "the model's 64 positions.*--max_length=65"),
    ])
    def test_an_option_that_does_not_fit(self, change, said, job):
        assert_refused(dataclasses.replace(job, **change), said)

    @pytest.mark.parametrize(("rows", "said"), [
        ("a film\tgood\nit is\tgood\n", "train.tsv: .*two labels.* of 'good'$"),
        ("a film\t3.8\nit is\t4.0\n", "train.tsv: .*regression.*Received: 3.8, 4.0"),
        ("a film\tgood\ntext\tlabel\nit is\tbad\n", "train.tsv:3: the header must"),
    ])
    def test_files_that_teach_no_classes(self, rows, said, job, tmp_path):
        write(tmp_path / "train.tsv", rows)
        assert_refused(job, said)

    def test_labels_of_the_checkpoint_that_no_list_can_hold(self, job, tmp_path):
        place = tmp_path / "bert"
        shutil.copytree(job.model, place)
        file = place / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {
            "id2label": {"0": "bad", "1": "good", "2": ""}}))
        assert_refused(dataclasses.replace(job, model=place),
                       "each once. Received: '' among 3 labels")

    def test_a_tokenizer_of_more_words_than_the_model_has(self, job, tmp_path):
        place = tmp_path / "bert"
        shutil.copytree(job.model, place)
        tokenizer = data.tokenizer_from(place)
        tokenizer.save(place)
        (place / "vocab.txt").unlink()
        file = place / "tokenizer.json"
        description = json.loads(file.read_text(encoding="utf-8"))
        description["model"]["vocab"]["more"] = 103
        file.write_text(json.dumps(description))
        assert_refused(dataclasses.replace(job, model=place),
                       r"tokenizer\.json with 'more' of id 103, vocab_size=103$")
        # As of a baseline, whose files of weights know no vocabulary.
        with pytest.raises(ValueError, match="embedding, 103. Received: 104 entries, "
                                             "of which the last is 'more'$"):
            checks.check_vocabulary(model.load(job.model), data.tokenizer_from(place))

    @pytest.mark.parametrize(("fields", "said"), [
        ({"positions": 12}, "the teacher's 12 positions. Received: --max_length=16"),
        ({"do_lower_case": False},
         "same tokens.*reads 'A good film' otherwise .*hidden_weight=1.0, "),
    ])
    def test_a_teacher_that_does_not_fit(self, fields, said, job, tmp_path, tiny_dir):
        write(job.train, ROWS + "A good film\tgood\n")
        teacher = tuned(tmp_path / "teacher", tiny_dir, **fields)
        assert_refused(dataclasses.replace(job, teacher=Teacher(
            teacher=teacher, hidden_weight=1.0)), said)

    def test_a_damaged_teacher(self, job, tmp_path, tiny_dir):
        teacher = tuned(tmp_path / "teacher", tiny_dir)
        (teacher / "model.keras").write_bytes(b"half")
        assert_refused(dataclasses.replace(job, teacher=Teacher(teacher=teacher)),
                       "Received: .*teacher.*model.keras")

    def test_a_damaged_latency_table(self, job, tmp_path):
        (tmp_path / "table.json").write_text("[]")
        tables = Tables(latency_tables=(str(tmp_path / "table.json"),))
        assert_refused(dataclasses.replace(
            job, tables=tables, measuring=pipeline.Measuring(num_threads=1)),
            "cannot be read; remove it, and it is timed anew. Received: .*table.json: ")


def test_a_baseline_is_read_by_its_own_tokenizer_labels_and_length(
        job, tmp_path, tiny_dir, monkeypatch):
    """Another checkpoint's, named or not, has no part in it."""
    baseline = tuned(tmp_path / "baseline", tiny_dir, do_lower_case=False,
                     strip_accents=False)
    found = []
    monkeypatch.setattr(tfopt.pipeline.job.Road, "go",
                        lambda road, out, tpu: found.append(road.dataset))
    for name in (tiny_dir, "minilm"):  # the latter is the default, of other words
        dataclasses.replace(job, model=name, baseline=baseline, data=Data()).run()
        shutil.rmtree(tmp_path / "new")
    for dataset in found:
        assert dataset.tokenizer.vocab_size == 103 and not dataset.tokenizer.lowercase
        assert (dataset.task.labels, dataset.max_length) == (
            ("bad", "fine", "good"), 16)


@pytest.mark.parametrize(("change", "said"), [
    ({"data": Data(max_length=12)}, "trained on, 16. Received: --max_length=12"),
    ({"model": "random:bert_tiny"}, "The baseline's tokenizer must be the check"),
])
def test_what_differs_from_the_baselines_own_is_refused(change, said, job, tmp_path,
                                                        tiny_dir):
    baseline = tuned(tmp_path / "baseline", tiny_dir)
    assert_refused(dataclasses.replace(job, baseline=baseline, **change), said)


def test_the_unpruned_export_is_read_by_its_own_tokenizer(job, tmp_path, tiny_dir):
    """Each file by the one that lies nearest to it, of a cut vocabulary or a whole."""
    whole = tuned(tmp_path / "baseline", tiny_dir)
    dataset = job.dataset(data.tokenizer_from(whole))
    recipe = dataclasses.replace(job.recipe, exports=("float32",))
    before = model.load(whole)
    smaller = model.build(model.config_of(before).replace(vocab_size=50),
                          model.head_of(before))
    file, = stages.unpruned(job, recipe, dataset, before, smaller, tmp_path).values()
    dataset.tokenizer.keeping(range(50)).save(tmp_path)
    tasks.save(dataset.task, tmp_path)
    assert file == tmp_path / "exports" / "unpruned" / "float32.tflite"
    for artifact, words in ((file, 103), (tmp_path / "exports" / "float32.tflite", 50)):
        assert artifacts.text_side(artifact, None).tokenizer.vocab_size == words
