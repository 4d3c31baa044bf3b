"""Every pass and export on every task: it works, or is refused as the documents say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from test_conformance import CONFIG, LAYERS, PASSES, Tokenizer, inputs

from tfopt import compress, data, tasks
from tfopt import inputs as builders
from tfopt import model as models
from tfopt.compress import Context, Recipe
from tfopt.export import interpreter, tflite
from tfopt.train import Settings

LABELS = ("a", "b", "c")
# Task -> the record, and (number of an example, its class, its tokens) -> target.
CASES = {
    "regression": (lambda kind: kind(), lambda number, label, ids: float(label)),
    "multi_label": (lambda kind: kind(labels=LABELS), lambda number, label, ids: [
        *(int(own in (label, number % 2)) for own in range(3)), 0]),
    "embedding": (lambda kind: kind(width=CONFIG.hidden_size),
                  lambda number, label, ids: float(number // 2 % 2)),
    "token_classification": (
        lambda kind: kind(labels=("O", "B-x", "I-x")),
        lambda number, label, ids: [-1, *[label] * (len(ids) - 2), -1]),
}
DONE_ELSEWHERE = {"classification"}  # tests/test_conformance.py
# (task, pass) -> the sentence that refuses it.
REFUSED = {("embedding", "hidden_width"): "would be the output's"}
# Largest difference of an output's numbers, beside the largest of all.
TOLERANCES = dict.fromkeys(tflite.SCHEMES, 0.2) | {
    "float32": 1e-4, "sparse_float32": 1e-4, "float16": 0.01,
    "dynamic_wi4_afp32": 0.6, "dynamic_wi4b32_afp32": 0.6, "integer_wi8_ai8": 0.4}
PAGE = Path(__file__).parents[1] / "docs" / "encoders_and_tasks.md"


@pytest.fixture(scope="module", params=sorted({*tasks.all_tasks()} - DONE_ELSEWHERE))
def task(request) -> tasks.Task:
    kind = tasks.all_tasks()[request.param]
    return CASES[request.param][0](kind)


@pytest.fixture(scope="module")
def encoded(tiny_examples) -> data.Encoded:
    return tiny_examples[0]


@pytest.fixture(scope="module")
def context(task, tiny_examples) -> Context:
    encoded, classes = tiny_examples
    targets = [CASES[task.name()][1](number, label, ids) for number, (label, ids) in
               enumerate(zip(classes, encoded.ids, strict=True))]
    kind = data.PairedBatches if task.apart else data.Batches
    options = {"per_token": True} if task.per_token else {}
    train = kind(encoded, targets, batch_size=8, shuffle_seed=0, **options)
    return Context(train=train, dev=None, task=task,
                   settings=Settings(epochs=1, learning_rate=1e-3),
                   resources={"tokenizer": Tokenizer()})


def build(task, layers: int = 1):
    return models.build(CONFIG.replace(
        num_heads=CONFIG.num_heads * layers,
        intermediate_sizes=CONFIG.intermediate_sizes * layers), task.head(), seed=1)


@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_pass_works_and_what_it_leaves_is_exported(name, task, context, tmp_path):
    model = build(task, LAYERS.get(name, 1))
    recipe = Recipe(passes=(PASSES[name].example(),))
    if "dev" in PASSES[name].needs:
        context = dataclasses.replace(context, dev=context.train)
    if (task.name(), name) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[task.name(), name]):
            compress.run(model, recipe, context)
        return
    outcome, = compress.run(model, recipe, context)
    assert outcome.model.output_shape == model.output_shape
    plain = models.plain_copy(outcome.model)
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite.convert(plain, "float32"))
    runner = interpreter.Interpreter(file, num_threads=1)
    for tokens in (3, 20):
        example = inputs(plain, tokens)
        first = int(np.sum(example["token_type_ids"] == 0))
        np.testing.assert_allclose(runner.run(example["input_ids"][0], first),
                                   plain(example)[0], atol=2e-4)


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_an_export_computes_what_keras_does(scheme, task, encoded, tmp_path):
    model, file = build(task), tmp_path / "model.tflite"
    file.write_bytes(tflite.convert(model, scheme, calibration=builders.examples(
        encoded)))
    runner = interpreter.Interpreter(file, num_threads=1)
    asked = list(zip(encoded.ids, encoded.first_lengths, strict=True))[:6]
    expected = [model(builders.build([ids], [first]))[0].numpy()
                for ids, first in asked]
    # One number alone may be next to 0; the last products' inputs are some tenths.
    scale = max(0.3, *(np.abs(numbers).max() for numbers in expected))
    for (ids, first), numbers in zip(asked, expected, strict=True):
        np.testing.assert_allclose(runner.run(ids, first), numbers,
                                   atol=TOLERANCES[scheme] * scale)


def test_the_documents_say_what_is_refused():
    text = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.M))
    assert set(rows) >= set(PASSES)
    columns = next(re.findall(r"`(\w+)`", line) for line in text.splitlines()
                   if line.startswith("| pass"))
    assert set(columns) == set(tasks.all_tasks())
    for name in PASSES:
        cells = [cell.strip() for cell in rows[name].split("|")]
        refused = {column for column, cell in zip(columns, cells, strict=True)
                   if cell != "yes"}
        assert refused == {task for task, step in REFUSED if step == name}, name
