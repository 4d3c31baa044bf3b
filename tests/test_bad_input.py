"""Users' mistakes, through the scripts' mains: one sentence, status 1, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import scripts

from tfopt import model
from tfopt.export import tflite

SCRIPTS = scripts.EXPERIMENTS
TRAIN = "text\tlabel\n" + "a great film\tgood\nbad bad\tbad\nit is\tfine\n" * 4


def call(script: str, *arguments) -> SimpleNamespace:
    """Runs a command's main in this process; its out, and the last of what it said."""
    done = scripts.call(script, *arguments)
    return SimpleNamespace(status=done.status, out=done.stdout, err=done.stderr)


def assert_told(done: SimpleNamespace, script: str, *words: str) -> None:
    """Checks for status 1 and a last line on stderr that holds the words."""
    assert done.status == 1, done.err
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith(f"{script}.py: "), done.err
    for word in ("Received: ", *words):
        assert word in last


@pytest.fixture
def place(tmp_path, tiny_dir) -> Path:
    """A checkpoint `bert/` and files of data, all of which a test may break."""
    shutil.copytree(tiny_dir, tmp_path / "bert")
    (tmp_path / "train.tsv").write_text(TRAIN)
    (tmp_path / "dev.tsv").write_text(TRAIN)
    return tmp_path


def arguments(place: Path, *others) -> list[str]:
    return [f"--model_dir={place / 'bert'}", f"--train_file={place / 'train.tsv'}",
            f"--dev_file={place / 'dev.tsv'}", "--max_length=16", "--smoke",
            f"--out_dir={place / 'new' / 'out'}", *map(str, others)]


def compress(place: Path, *others) -> SimpleNamespace:
    return call("compress", *arguments(place, *others))


def assert_nothing_left(place: Path) -> None:
    assert not (place / "new").exists()


@pytest.mark.parametrize(("file", "contents", "words"), [
    ("train.tsv", b"text\tclass\na film\tgood\n", ["train.tsv:1", "'label'", "class"]),
    ("train.tsv", b"phrase\tlabel\na\tb\n", ["train.tsv:1", "'text'", "phrase"]),
    ("train.tsv", b"", ["train.tsv"]),
    ("dev.tsv", b"text\tlabel\n", ["dev.tsv"]),
    ("dev.tsv", b"text\tlabel\na\tsuperb\na\tbest\n", ["dev.tsv:2", "'superb'"]),
    ("train.tsv", b"text\tlabel\na\tgood\nno label\n", ["train.tsv:3", "no label"]),
    ("train.tsv", b"text\tlabel\na\tb\tc\n", ["train.tsv:2", "3: a, b, c"]),
    ("train.tsv", b"text\tlabel\ncaf\xe9\tgood\n", ["train.tsv:2", "0xe9"]),
    ("bert/vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n", ["vocab.txt", "[SEP]"]),
    ("bert/model.safetensors", b"\x10\0\0\0\0\0\0\0{}", ["model.safetensors"]),
    ("bert/config.json", b"{", ["config.json"]),
], ids=["missing label column", "missing text column", "empty", "header only",
        "labels that train lacks alone", "too few fields", "too many fields",
        "not UTF-8", "vocabulary without specials", "broken weights", "broken config"])
def test_a_broken_file_is_named(file, contents, words, place):
    (place / file).write_bytes(contents)
    assert_told(compress(place), "compress", *words)
    assert_nothing_left(place)


def test_a_truncated_checkpoint_is_named(place):
    weights = place / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_told(call("finetune", *arguments(place)), "finetune", str(weights))
    assert_nothing_left(place)


def test_a_vocabulary_larger_than_the_embedding(place):
    with open(place / "bert" / "vocab.txt", "a") as vocabulary:
        vocabulary.write("more\n")
    assert_told(compress(place), "compress", "vocab.txt", "104", "103")
    assert_nothing_left(place)


@pytest.mark.parametrize(("field", "value", "words"), [
    ("hidden_act", "sine", ["'sine'"]),
    ("num_attention_heads", 5, ["num_heads=5", "hidden_size=32"]),
    ("model_type", "gpt2", ["'gpt2'"]),
    ("hidden_size", 16, ["(103, 16)", "(103, 32)"]),
    ("num_hidden_layers", 4, ["layer.3."]),
])
def test_a_config_that_does_not_fit(field, value, words, place):
    file = place / "bert" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    assert_told(compress(place), "compress", *words)
    assert_nothing_left(place)


def test_pickled_weights_are_refused_and_the_way_out_is_told(place):
    weights = place / "bert" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert_told(compress(place), "compress", "pytorch_model.bin",
                "safe_serialization=True")
    assert_nothing_left(place)


@pytest.mark.parametrize(("flag", "words"), [
    ("--max_length=65", ["64 positions", "--max_length=65"]),
    ("--train_file=nowhere.tsv", ["No such file", "nowhere.tsv"]),
    ("--train_file=train.txt", [".tsv", "train.txt"]),
    ("--model_dir=nowhere", ["'nowhere'"]),
    ("--model_dir=random:bert_huge", ["bert_huge'"]),
    ("--recipe=nothing", ["int8", "'nothing'"]),
    ("--text_pair_column=second", ["'second'"]),
    ("stray", ["--flag=value", "stray"]),
])
def test_a_flag_that_names_nothing(flag, words, place):
    assert_told(compress(place, flag), "compress", *words)
    assert_nothing_left(place)


@pytest.mark.parametrize(("recipe", "words"), [
    ('{"passes": [{"pass": "magnitude", "final_sparsity": 0.5, "sparsity": 0.7}]}',
     ["final_sparsity", "sparsity=0.7"]),
    ('{"passes": [{"pass": "magnitude", "final_sparsity": 1.5}]}',
     ["final_sparsity=1.5"]),
    ('{"passes": [{"pass": "magnitude"}]}', ["final_sparsity"]),
    ('{"passes": [{"pass": "magic"}]}', ["magnitude", "'magic'"]),
    ('{"passes": [{"pass": "none"}], "exports": ["int3"]}', ["'int3'"]),
    ('{"passes": [{"pass": "none"}], "exports": "float32"}', ["exports='float32'"]),
    ('{"passes": [{"pass": "none"}], "export": ["float32"]}', ['"export"']),
    ('{"passes": []}', ["passes=()"]),
    ('{"passes": [{"pass": "none"}], "distillation": {"heat": 2}}',
     ["temperature", "heat=2"]),
    ('{"passes": [{"pass": "magnitude", "final_sparsity": 0.5, "end_step": 99980}]}',
     ["end_step=99980"]),
    ('[{"pass": "none"}]', ['[{"pass": "none"}]']),
    ("{'passes': []}", ["{'passes': []}"]),
])
def test_a_wrong_recipe(recipe, words, place):
    file = place / "recipe.json"
    file.write_text(recipe)
    assert_told(compress(place, f"--recipe={file}"), "compress", *words)
    assert_nothing_left(place)


def test_an_export_too_short_for_the_texts(place):
    assert_told(compress(place, "--export_length=8"), "compress", "--export_length=8",
                "--max_length=16")
    assert_nothing_left(place)


def test_a_mistake_once_mended_is_not_held_against_the_user(place):
    assert_told(compress(place, "--max_length=65"), "compress", "--max_length=65")
    assert_told(compress(place, "--recipe=nothing"), "compress", "'nothing'")
    assert call("finetune", *arguments(place)).status == 0


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory, tiny_dir) -> Path:
    """A finished run, its data beside it."""
    place = tmp_path_factory.mktemp("finetuned")
    shutil.copytree(tiny_dir, place / "bert")
    (place / "train.tsv").write_text(TRAIN)
    (place / "dev.tsv").write_text(TRAIN)
    done = call("finetune", *arguments(place))
    assert done.status == 0, done.err
    return place


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("script", "flag", "said"), [
    ("finetune", "--seed=1", "another run: seed 0 there, 1 here"),
    ("finetune", "--epochs=7", "another run: epochs 3 there, 7 here"),
    ("compress", "--smoke", 'run "finetune" there, "compress" here')])
def test_a_directory_of_another_run_is_left_alone(script, flag, said, finetuned):
    out = finetuned / "new" / "out"
    before = contents(out)
    assert_told(call(script, *arguments(finetuned, flag)), script, said, str(out))
    assert contents(out) == before


def test_a_directory_with_foreign_files_is_left_alone(place):
    notes = place / "new" / "out" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    assert_told(compress(place), "compress", "empty", str(notes.parent))
    assert contents(place / "new") == {str(notes): b"mine"}


def test_a_file_in_the_place_of_the_directory_is_left_alone(place):
    (place / "new").write_text("mine")
    assert_told(compress(place, f"--out_dir={place / 'new'}"), "compress", "new")
    assert (place / "new").read_text() == "mine"


@pytest.mark.parametrize(("labels", "words"), [
    ("bad\ngood\n", ["--baseline_dir", "['bad', 'good']"]), (None, ["no labels"])])
def test_a_baseline_of_other_labels(labels, words, finetuned, place):
    baseline = place / "baseline"
    shutil.copytree(finetuned / "new" / "out", baseline)
    for name in ("labels.txt", "task.json"):  # as the first edition left it
        (baseline / name).unlink()
    if labels:
        (baseline / "labels.txt").write_text(labels)
    assert_told(compress(place, f"--baseline_dir={baseline}"), "compress", *words)
    assert_nothing_left(place)


def test_a_length_above_the_positions_of_a_given_baseline(finetuned, place):
    baseline = place / "baseline"
    shutil.copytree(finetuned / "new" / "out", baseline)
    flags = [f"--baseline_dir={baseline}", "--max_length=65"]
    assert_told(compress(place, *flags), "compress", "trained on, 16",
                "--max_length=65")
    (baseline / "text.json").unlink()  # as the first edition left it
    assert_told(compress(place, *flags), "compress", "64 positions", "--max_length=65")
    assert_nothing_left(place)


# The weights take 140 kB, the state of training three times as much.
@pytest.mark.parametrize("size", [60_000, 250_000], ids=["best weights", "checkpoint"])
def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(
        full_disk, size, place):
    out = place / "new" / "out"
    with full_disk(size):
        done = call("finetune", *arguments(place))
    assert_told(done, "finetune", "File too large", str(out))
    assert not (out / "model.keras").exists()
    assert not (out / "report.json").exists()
    assert call("finetune", *arguments(place)).status == 0
    assert model.load(out).output_shape == (None, 3)
    assert not (out / "state").exists()


def test_a_full_disk_leaves_no_part_of_a_model(full_disk, finetuned, place):
    out = place / "new" / "out"
    with full_disk(100_000):
        done = compress(place, f"--baseline_dir={finetuned / 'new' / 'out'}")
    assert_told(done, "compress", "File too large", str(out))
    assert not [path for path in out.rglob("*")
                if path.suffix in (".keras", ".tflite") or "partial" in path.name]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_dir) -> Path:
    """A directory as compress.py leaves it: model.tflite, vocab.txt, labels.txt."""
    place = tmp_path_factory.mktemp("exported")
    small = model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=64), model.Head(outputs=3))
    (place / "model.tflite").write_bytes(tflite.convert(small))
    shutil.copy(tiny_dir / "vocab.txt", place)
    (place / "labels.txt").write_text("bad\nfine\ngood\n")
    (place / "eval.tsv").write_text(TRAIN)
    return place


@pytest.mark.parametrize(("file", "contents", "words"), [
    ("model.tflite", None, ["model.tflite"]),
    ("model.tflite", b"no model", ["model.tflite"]),
    ("vocab.txt", None, ["vocab.txt"]),
    ("labels.txt", None, ["labels.txt"]),
    ("labels.txt", b"bad\ngood\n", ["labels.txt"]),
    ("labels.txt", b"bad\nbad\ngood\n", ["labels.txt", "bad"]),
])
@pytest.mark.parametrize("script", ["predict", "measure"])
def test_an_artifact_that_is_not_whole(script, file, contents, words, exported,
                                       tmp_path):
    place = tmp_path / "artifact"
    shutil.copytree(exported, place)
    (place / file).unlink()
    if contents is not None:
        (place / file).write_bytes(contents)
    of = {"predict": "--text=a film", "measure": f"--eval_file={place / 'eval.tsv'}"}
    done = call(script, f"--artifact={place / 'model.tflite'}", of[script])
    assert_told(done, script, *words)
    assert done.out == ""


def test_a_list_of_more_labels_than_classes_is_refused_by_measure(exported, tmp_path):
    place = tmp_path / "artifact"
    shutil.copytree(exported, place)
    (place / "labels.txt").write_text("bad\nfine\ngood\nmore\n")
    done = call("measure", f"--artifact={place / 'model.tflite'}",
                f"--eval_file={place / 'eval.tsv'}", "--smoke", "--max_length=32")
    assert_told(done, "measure", "3 classes", "4")


@pytest.mark.parametrize(("contents", "words"), [
    (b"fine\ncaf\xe9\n", ["texts.txt:2", "0xe9"]), (None, ["texts.txt"])])
def test_predict_refuses_a_file_of_texts(contents, words, exported, tmp_path):
    texts = tmp_path / "texts.txt"
    if contents:
        texts.write_bytes(contents)
    assert_told(call("predict", f"--artifact={exported / 'model.tflite'}",
                     f"--input_file={texts}"), "predict", *words)


def test_measure_leaves_no_report_of_a_failed_run(exported, tmp_path):
    target = tmp_path / "new" / "figures.json"
    done = call("measure", f"--artifact={exported / 'model.tflite'}",
                f"--eval_file={tmp_path / 'nowhere.tsv'}", f"--report={target}")
    assert_told(done, "measure", "nowhere.tsv")
    assert not target.parent.exists()


def run(code_or_script: list[str], **environment) -> SimpleNamespace:
    done = subprocess.run([sys.executable, *code_or_script], capture_output=True,
                          text=True, check=False, timeout=120,
                          env=os.environ | environment)
    return SimpleNamespace(status=done.returncode, err=done.stderr)


@pytest.mark.parametrize(("script", "flag", "words"), [
    ("predict", "--num_threads=0", ["--num_threads", "0", "positive"]),
    ("predict", "--top_k=many", ["--top_k", "many"]),
    ("predict", "--nonsense=1", ["nonsense"]),
    ("finetune", "--strategy=tpu_pod", ["--strategy", "tpu_pod", "mirrored"]),
])
def test_a_flag_out_of_its_range_is_told_by_absl(script, flag, words):
    done = run([str(SCRIPTS / f"{script}.py"), flag, "--out_dir=x"]
               if script == "finetune" else [str(SCRIPTS / f"{script}.py"), flag])
    assert done.status == 1
    assert "Traceback" not in done.err
    told = done.err[done.err.index("FATAL Flags parsing error"):]
    for word in words:
        assert word in told


def test_predict_needs_one_model(exported):
    assert_told(call("predict", "--top_k=1"), "predict", "--artifact", "--bundle")
    assert_told(call("predict", f"--artifact={exported / 'model.tflite'}",
                     f"--bundle={exported}"), "predict", "One of", str(exported))


def test_a_process_with_keras_3_is_refused(tmp_path):
    done = run(["-c", "import runpy, sys, tensorflow as tf; tf.keras.Model; "
                f"sys.argv = ['finetune.py', '--out_dir={tmp_path / 'out'}']; "
                f"sys.path.insert(0, {str(SCRIPTS)!r}); "
                f"runpy.run_path({str(SCRIPTS / 'finetune.py')!r}, "
                "run_name='__main__')"], TF_USE_LEGACY_KERAS="0")
    assert_told(done, "finetune", "TF_USE_LEGACY_KERAS=1", "tf.keras 3")
    assert not (tmp_path / "out").exists()
