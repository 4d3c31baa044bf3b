"""Files for MediaPipe's clients, by the rules that were found by breaking them."""

from __future__ import annotations

import copy
import dataclasses
import io
import zipfile

import numpy as np
import pytest
from conftest import CONFIG, HEAD
from reading import operations

import tfopt
from tfopt import model as models
from tfopt.data import WordPiece
from tfopt.export import (
    flatbuffer,
    graph_edits,
    mediapipe,
    model_metadata,
    tflite,
    verify,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]",
         *(f"w{i}" for i in range(CONFIG.vocab_size - 4))]
LABELS = [f"label {i}" for i in range(HEAD.outputs)]
IDS = [2, 5, 6, 7, 3]


@pytest.fixture(scope="module")
def bert():
    return models.build(CONFIG, HEAD, seed=3)


@pytest.fixture(scope="module")
def plain(bert) -> bytes:
    return tflite.convert(bert, "dynamic_wi8_afp32")


@pytest.fixture(scope="module")
def finished(plain) -> bytes:
    return mediapipe.add(plain, vocabulary=WORDS, labels=LABELS)


def interpreter(contents, tmp_path, name="model.tflite"):
    (tmp_path / name).write_bytes(contents)
    return tfopt.Interpreter(tmp_path / name, num_threads=1)


def changed(contents: bytes, change) -> bytes:
    """The file after a change of its model, the files behind it as they were."""
    _, files = model_metadata.read(contents)
    model = flatbuffer.parse(contents)
    change(model)
    room = io.BytesIO(flatbuffer.serialize(model))
    with zipfile.ZipFile(room, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return room.getvalue()


def test_logits_stay_and_probabilities_come_first(plain, finished, tmp_path):
    verify.check(finished)
    found = interpreter(finished, tmp_path)
    np.testing.assert_array_equal(
        found.run(IDS), interpreter(plain, tmp_path, "plain.tflite").run(IDS))
    model = flatbuffer.parse(finished)
    graph = model.subgraphs[0]
    outputs = [graph.tensors[i].name for i in graph.outputs]
    assert outputs[0] == b"probabilities" and len(outputs) == 2
    names = {one.name for one in model.signatureDefs[0].outputs}
    assert names == {b"logits", b"probabilities"}
    assert operations(finished)[-1].kind == "SOFTMAX"
    assert not mediapipe.problems(finished)


def test_the_scores_are_those_of_the_logits(finished, tmp_path):
    from ai_edge_litert import interpreter as litert

    (tmp_path / "a.tflite").write_bytes(finished)
    runner = litert.Interpreter(str(tmp_path / "a.tflite")).get_signature_runner()
    ids = np.array([IDS], np.int32)
    found = runner(input_ids=ids, attention_mask=np.ones_like(ids),
                   token_type_ids=np.zeros_like(ids))
    exact = np.exp(found["logits"][0] - found["logits"].max())
    np.testing.assert_allclose(found["probabilities"][0], exact / exact.sum(),
                               atol=1e-6)


def test_several_labels_have_scores_of_their_own(plain):
    several = mediapipe.add(plain, vocabulary=WORDS, labels=LABELS, scores="sigmoid")
    assert operations(several)[-1].kind == "LOGISTIC"
    assert not mediapipe.problems(several)


def test_metadata_are_read_back(finished):
    metadata, files = model_metadata.read(finished)
    assert metadata.inputs == ("mask", "ids", "segment_ids")
    assert metadata.outputs == ("probability", "logits")
    assert files == {"vocab.txt": "".join(f"{word}\n" for word in WORDS),
                     "labels.txt": "".join(f"{label}\n" for label in LABELS)}


def test_files_are_stored_and_of_a_fixed_date(plain, finished):
    assert mediapipe.add(plain, vocabulary=WORDS, labels=LABELS) == finished
    with zipfile.ZipFile(io.BytesIO(finished)) as archive:
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)


def test_weights_are_the_same_and_lie_by_multiples_of_16(plain, finished):
    def weights(contents):
        model = flatbuffer.parse(contents)
        return {tensor.name: bytes(data) for tensor in model.subgraphs[0].tensors
                if (data := flatbuffer.stored(model, tensor)) is not None}

    before, after = weights(plain), weights(finished)
    assert {name: after[name] for name in before} == before
    for name, data in after.items():
        if len(data) > 64:  # a shorter one may stand in the file by chance
            assert finished.index(data) % 16 == 0, name


def test_a_text_above_the_positions_is_answered_there_and_refused_here(
        finished, tmp_path):
    from ai_edge_litert import interpreter as litert

    (tmp_path / "a.tflite").write_bytes(finished)
    graph = litert.Interpreter(str(tmp_path / "a.tflite"))
    tokens = CONFIG.max_positions + 9
    for detail in graph.get_input_details():
        graph.resize_tensor_input(detail["index"], [1, tokens])
    graph.allocate_tensors()
    for detail in graph.get_input_details():
        graph.set_tensor(detail["index"], np.ones([1, tokens], np.int32))
    graph.invoke()
    found = graph.get_tensor(graph.get_output_details()[0]["index"])
    assert np.isfinite(found).all()
    ours = interpreter(finished, tmp_path)
    with pytest.raises(ValueError, match=f"{CONFIG.max_positions}.*{tokens} tokens"):
        ours.run([5] * tokens)
    assert ours.run([5] * CONFIG.max_positions).shape == (HEAD.outputs,)


def test_a_fixed_length_has_no_positions_to_bound(bert, tmp_path):
    fixed = mediapipe.add(tflite.convert(bert, length=8), vocabulary=WORDS,
                          labels=LABELS)
    assert not mediapipe.problems(fixed)
    assert interpreter(fixed, tmp_path).fixed_length == 8


def test_vectors_are_for_the_embedder():
    vectors = models.build(CONFIG, models.Head(outputs=None, reads="mean", pooler=None))
    found = mediapipe.add(tflite.convert(vectors), vocabulary=WORDS)
    metadata, files = model_metadata.read(found)
    assert metadata.outputs == ("embedding",) and [*files] == ["vocab.txt"]
    assert not mediapipe.problems(found)


def test_ten_thousand_labels(tmp_path):
    many = models.build(CONFIG, dataclasses.replace(HEAD, outputs=10_000))
    found = mediapipe.add(tflite.convert(many, "dynamic_wi8_afp32"), vocabulary=WORDS,
                          labels=[f"label {i}" for i in range(10_000)])
    assert not mediapipe.problems(found)
    assert interpreter(found, tmp_path).outputs == 10_000


BROKEN = {
    "named": lambda model: model.subgraphs[0].inputs.__setitem__(
        slice(None), model.subgraphs[0].inputs[::-1].copy()),
    "as many outputs": lambda model: setattr(
        model.subgraphs[0], "outputs", model.subgraphs[0].outputs[:1]),
    "its labels must be of scores": lambda model: setattr(
        model.subgraphs[0], "outputs", model.subgraphs[0].outputs[::-1].copy()),
    "one graph": lambda model: model.subgraphs.append(
        copy.deepcopy(model.subgraphs[0])),
    "three of int32": lambda model: setattr(
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]], "type",
        graph_edits.INT64),
    "open in length": lambda model: setattr(
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]], "shapeSignature",
        np.array([1, 9], np.int32)),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule, finished):
    def change(model):
        model.subgraphs[0].inputs = np.array(model.subgraphs[0].inputs)
        BROKEN[rule](model)

    assert any(rule in problem
               for problem in mediapipe.problems(changed(finished, change)))


@pytest.mark.parametrize("words, labels, reason", [
    (WORDS, LABELS[1:], "a label each; there are 2"),
    (WORDS, ["a", "b\nc", "d"], r"each label must be one line; 'b\\nc' is none"),
    (WORDS, ["a", "", "d"], "each label must be one line; '' is none"),
    ([*WORDS[:-1], "w\n"], LABELS, "each vocabulary must be one line"),
])
def test_what_cannot_be_is_told(words, labels, reason, plain):
    with pytest.raises(ValueError, match=reason):
        mediapipe.add(plain, vocabulary=words, labels=labels)


def test_integers_alone_are_refused(bert, examples):
    contents = tflite.convert(bert, "integer_wi8_ai8", calibration=examples)
    with pytest.raises(ValueError, match="must be float32; this one's is int8"):
        mediapipe.add(contents, vocabulary=WORDS, labels=LABELS)


def test_metadata_are_added_once(finished):
    with pytest.raises(ValueError, match="has them already"):
        mediapipe.add(finished, vocabulary=WORDS, labels=LABELS)


@pytest.mark.parametrize("damage", [
    lambda contents: contents[:-30],  # the zip's end
    lambda contents: b"PK\3\4".join(part.replace(b"vocab.txt", b"vocab.tyt") if i else
                                     part for i, part in
                                     enumerate(contents.split(b"PK\3\4"))),
    lambda contents: contents[:-22] + bytes(22),
])
def test_a_damaged_zip_is_told(damage, finished, tmp_path):
    with pytest.raises(ValueError, match="must be a whole zip with vocab"):
        model_metadata.read(damage(finished))
    # What it computes is not in the zip.
    assert interpreter(damage(finished), tmp_path).run(IDS).shape == (HEAD.outputs,)


def test_damaged_metadata_are_told(finished):
    place = finished.index(b"M001") - 4
    random = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        at = place + int(random.integers(0, 200))
        found = bytearray(finished)
        found[at] = int(random.integers(256))
        try:
            model_metadata.read(bytes(found))
        except ValueError as error:
            told += str(error).startswith(("The metadata of a .tflite must be whole",
                                           "The files behind a .tflite"))
    assert told > 30


def test_old_runtimes_have_one_scale_for_a_table(bert, tmp_path):
    contents = tflite.convert(bert, "dynamic_wi8_afp32", for_old_runtimes=True)
    model = flatbuffer.parse(contents)
    tables = [model.subgraphs[0].tensors[operation.inputs[1]]
              for operation in flatbuffer.operations(model, "EMBEDDING_LOOKUP")]
    assert tables and all(len(table.quantization.scale) == 1 for table in tables)
    expected = interpreter(tflite.convert(bert), tmp_path).run(IDS)
    np.testing.assert_allclose(interpreter(contents, tmp_path, "old.tflite").run(IDS),
                               expected, atol=0.05)


@pytest.mark.parametrize("scheme", ["integer_wi8_ai8", "dynamic_wi4_afp32"])
def test_old_runtimes_cannot_have_every_export(scheme, bert, examples):
    with pytest.raises(ValueError, match="Old runtimes have tables of 8 bits"):
        tflite.convert(bert, scheme, calibration=examples, for_old_runtimes=True)


def test_by_hand_with_a_tokenizer(plain, tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    found = tfopt.add_metadata(plain, tmp_path, LABELS)
    assert not mediapipe.problems(found)
    cased = WordPiece(tmp_path / "vocab.txt", lowercase=False)
    with pytest.raises(ValueError, match="the vocabulary is cased"):
        tfopt.add_metadata(plain, cased, LABELS)
