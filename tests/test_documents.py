"""The README and docs/: their Python runs, what they name is there, and all is named.

Every ```python block runs, outside of the checkout, after those before it on its page.
A block marked ```python no-run does not, and is counted in NOT_RUN with its reason.
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

import tfopt
from tfopt import compress, data, tasks, train
from tfopt.backend import keras, tf
from tfopt.export import tflite
from tfopt.model.families import registry
from tfopt.pipeline import timing

ROOT = Path(__file__).parents[1]
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
         for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
BLOCK = re.compile(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
# Page -> blocks that are not run, each with its reason here.
# A search takes minutes; `tests/pipeline/test_searching.py` runs one.
NOT_RUN: dict[str, int] = {"docs/search.md": 1}
# Flags of other programs, and those that absl itself has.
OTHERS_FLAGS = {"graph", "input_layer", "input_layer_shape", "input_layer_value_files",
                "help", "flagfile", "logdir", "no-deps", "prefix"}
RESULTS = {file.name for file in (ROOT / "experiments" / "results").iterdir()}
# Files that documents name, which are no results.
OTHER_FILES = {"config.json", "bert_config.json", "bert.json", "tokenizer.json",
               "tokenizer_config.json", "vocab.json", "bundle.json", "task.json",
               "run.json", "report.json", "recipe.json", "structure.json",
               "ladder.json", "reference.json", "dashboard.json", "modules.json",
               "adapter_config.json", "benchmark.json", "search.json", "space.json"}
# What the glossary replaced; it alone may have them, as what something was called.
OLD_WORDS = re.compile(r"\b(foretold|taught|massive|so many|settles?|hears)\b", re.I)


def blocks(page: str, language: str) -> list[tuple[int, str, str]]:
    """(line, what stands behind the language, contents) of a page's blocks."""
    return [(PAGES[page].count("\n", 0, found.start(3)), found[2], found[3])
            for found in BLOCK.finditer(PAGES[page]) if found[1] == language]


def test_blocks_are_found_with_their_line_and_mark(monkeypatch):
    monkeypatch.setitem(PAGES, "page", "a\n```python\nb = 1\n\nc = 2\n```\n"
                                       "```python no-run\nd\n```\n```\ne\n```\n")
    assert blocks("page", "python") == [(2, "", "b = 1\n\nc = 2\n"),
                                        (7, "no-run", "d\n")]


@pytest.fixture(scope="module")
def checkpoint(tiny_dir, tmp_path_factory) -> Path:
    """Two layers of the tiny checkpoint, with room for 128 tokens."""
    directory = tmp_path_factory.mktemp("reader") / "bert_dir"
    shutil.copytree(tiny_dir, directory)
    file = directory / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {
        "max_position_embeddings": 128, "num_hidden_layers": 2}), encoding="utf-8")
    tensors = {name: tensor for name, tensor in safetensors.load_file(
        directory / "model.safetensors").items() if "layer.2." not in name}
    name, = (name for name in tensors if "position_embeddings" in name)
    tensors[name] = np.concatenate([tensors[name]] * 2)
    safetensors.save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module")
def teacher(checkpoint):
    """Its model, which no page trains."""
    return tfopt.model.load(checkpoint, num_labels=3)


@pytest.fixture
def reader(checkpoint, teacher, tmp_path, monkeypatch) -> dict:
    """What the documents take as the reader's own: files here, and names."""
    monkeypatch.chdir(tmp_path)
    whole = timing.times  # hundreds of requests to each artifact
    monkeypatch.setattr(timing, "times", lambda *artifacts, **options: whole(
        *artifacts, **options | {"smoke": True}))
    shutil.copytree(checkpoint, "bert_dir")
    corpus = data.read(data.DEMO_TRAIN_FILE)
    labels = corpus.label_list()[:3]
    few = [i for i, label in enumerate(corpus.labels) if label in labels][:32]
    lines = [f"{corpus.texts[i]}\t{corpus.labels[i]}" for i in few]
    for name in ("train.tsv", "dev.tsv"):
        Path(name).write_text("\n".join(["text\tlabel", *lines]) + "\n",
                              encoding="utf-8")
    texts = [corpus.texts[i] for i in few]
    encoded = data.tokenizer_from("bert_dir").encode(texts, max_length=128)
    class_ids = [labels.index(corpus.labels[i]) for i in few]
    batches = data.Batches(encoded, class_ids, batch_size=16)
    model = compress.copy_model(teacher)
    dense = next(layer for layer in model.layers
                 if isinstance(layer, keras.layers.Dense))
    return {"tfopt": tfopt, "model": model, "texts": texts, "batches": batches,
            "encoded": encoded, "class_ids": class_ids,
            "dataset": batches.dataset(1).apply(
                tf.data.experimental.assert_cardinality(batches.steps_per_epoch)),
            "student": model, "teacher": teacher, "pruned_dense": dense,
            "x": np.ones([2, 128], np.float32), "kernel": np.eye(128, dtype="float32"),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


@pytest.mark.parametrize("page", [page for page in PAGES if any(
    not mark for _, mark, _ in blocks(page, "python"))])
def test_the_python_of_a_page_runs(page, reader):
    names = dict(reader)
    for line, mark, text in blocks(page, "python"):
        if not mark:
            exec(compile("\n" * line + text, str(ROOT / page), "exec"), names)


def test_few_blocks_are_not_run():
    marked = {page: [mark for _, mark, _ in blocks(page, "python") if mark]
              for page in PAGES}
    assert {mark for marks in marked.values() for mark in marks} <= {"no-run"}
    assert {page: len(marks) for page, marks in marked.items() if marks} == NOT_RUN


def defined_flags() -> set[str]:
    """Names of all flags that the command line and the scripts define."""
    sources = [path.read_text(encoding="utf-8")
               for folder in ("tfopt", "experiments", "examples")
               for path in (ROOT / folder).rglob("*.py")]
    # A flag is defined by itself, or made of a record's field; examples use argparse.
    forms = (r"""DEFINE_\w+\(\s*f?["']([\w{}]+)["']""", r"(\w+): .*? = option\(",
             r"""flag=["'](\w+)["']""", r"""add\("--(\w+)\"""")
    found = {name for form in forms for text in sources
             for name in re.findall(form, text)}
    return found | {field.name for field in dataclasses.fields(train.Settings)}


def test_flags_that_documents_name_are_defined():
    known = [re.sub(r"\\{.*?\\}", r"\\w+", re.escape(name)) for name in defined_flags()]
    pattern = re.compile(f"(no)?({'|'.join(known)})$|xla_")
    # `--distil_*` and `--distil_..._weight` mean several.
    written = {(page, flag) for page, text in PAGES.items()
               for flag in re.findall(r"(?<![\w-])--(\w[\w-]*)(?![\w*.-])", text)}
    assert len(written) > 40
    unknown = {(page, flag) for page, flag in written
               if flag not in OTHERS_FLAGS and not pattern.match(flag)}
    assert not unknown


def test_commands_that_documents_name_are_there():
    for page in PAGES:
        for script in re.findall(r"python (ex\w+/\S+\.py)", PAGES[page]):
            assert (ROOT / script).is_file(), f"{page} has {script}"


@pytest.mark.parametrize("names", [tasks.all_tasks, registry.all_families],
                         ids=["tasks", "families"])
def test_every_one_has_a_row_of_the_readme(names):
    missing = sorted(name for name in names() if f"`{name}`" not in PAGES["README.md"])
    assert not missing, f"Give {missing} a row of a table in README.md."


def test_every_recipe_is_in_the_readme():
    recipes = {file.stem for file in ROOT.rglob("recipes/*.json")
               if ".venv" not in file.parts}
    assert len(recipes) >= 18
    missing = {name for name in recipes if f"`{name}`" not in PAGES["README.md"]}
    assert not missing, f"Give {missing} a row of README.md's table of recipes."


@pytest.mark.parametrize("names, pages", [
    (compress.all_passes, ["pruning", "structures_and_teachers", "quantization",
                           "sparsity", "data_and_checkpoints"]),
    (lambda: tflite.SCHEMES, ["quantization"]),
], ids=["passes", "schemes"])
def test_every_one_has_a_row(names, pages):
    text = "".join(PAGES[f"docs/{page}.md"] for page in pages)
    missing = sorted(name for name in names() if f"`{name}`" not in text)
    assert not missing, f"Give {missing} a row in one of {pages}, under docs/."


def test_every_package_is_in_the_api_reference():
    reference = "".join(text for page, text in PAGES.items() if "/api/" in page)
    parts = {f"tfopt.{info.name}" for info in pkgutil.iter_modules(tfopt.__path__)}
    missing = sorted(name for name in parts
                     if f"::: {name}\n" not in f"{reference}\n")
    assert not missing, f"Give {missing} a line '::: name' in a page of docs/api."


def test_every_name_of_the_facade_is_in_the_api_reference():
    missing = [name for name in tfopt.__all__
               if f"[`tfopt.{name}`]" not in PAGES["docs/api/tfopt.md"]]
    assert not missing, f"Give {missing} a row in docs/api/tfopt.md."


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [page for page in PAGES
               if page != "README.md" and page.removeprefix("docs/") not in text]
    assert not missing, f"Give {missing} a line of nav in mkdocs.yml."


@pytest.mark.parametrize("name", [
    "README.md", "BUILD_NOTES.md", "CONTRIBUTING.md", "CHANGELOG.md",
    "experiments/README.md", *(page.relative_to(ROOT).as_posix() for page in sorted(
        ROOT.glob("examples/*/README.md")))])
def test_links_of_pages_outside_of_the_site_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{name} links to {link}"


def test_links_of_the_site_stay_within_it():
    for page in (ROOT / "docs").rglob("*.md"):
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8")):
            target = (page.parent / link).resolve()
            assert target.exists(), f"{page.name} links to {link}"
            assert target.is_relative_to(ROOT / "docs"), f"{page.name} links to {link}"


def test_results_that_documents_name_are_there():
    for page, text in PAGES.items():
        for name in re.findall(r"`(?:results/)?([\w*]+\.json)`", text):
            assert name in OTHER_FILES or any(
                Path(result).match(name) for result in RESULTS), f"{page} has {name}"


def test_documents_use_the_glossarys_words():
    found = {page: sorted(set(OLD_WORDS.findall(text))) for page, text in PAGES.items()
             if page != "docs/glossary.md" and OLD_WORDS.search(text)}
    assert not found
