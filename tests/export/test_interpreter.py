"""The LiteRT runner: texts and ids, changing lengths, and refusals it survives."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

from tfopt import model
from tfopt.backend import keras, tf
from tfopt.data import WordPiece
from tfopt.export import calibrate, tflite
from tfopt.export import interpreter as interpreters
from tfopt.export import litert as litert_graphs
from tfopt.export.interpreter import (
    Interpreter,
    fewest_threads,
    softmax,
    thread_counts,
)

POSITIONS = 32
TEXTS = ["a great film", "bad", "it was not really good, this movie!", "x" * 20]


@pytest.fixture(scope="module")
def bert():
    """Two layers over the tiny vocabulary, its weights large enough to tell apart."""
    return model.build(model.EncoderConfig.uniform(
        hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24,
        vocab_size=103, max_positions=POSITIONS, initializer_range=0.5),
        model.Head(outputs=3))


@pytest.fixture(scope="module")
def files(bert, tmp_path_factory):
    """Export name -> file: each scheme at open length, and one of 12 tokens."""
    place = tmp_path_factory.mktemp("exports")
    calibration = calibrate.examples_of([ids_of(n) for n in (2, 5, 8, 17, 32)],
                                        [2, 5, 8, 17, 32])
    contents = {"fixed": tflite.convert(bert, "float32", length=12)}
    graph = tflite.float_graph(bert)
    for scheme in tflite.SCHEMES:
        contents[scheme] = (tflite.quantize(graph, scheme, calibration=calibration)
                            if "_wi" in scheme else tflite.convert(bert, scheme))
    for name, own in contents.items():
        (place / f"{name}.tflite").write_bytes(own)
    return {name: place / f"{name}.tflite" for name in contents}


@pytest.fixture(scope="module")
def wordpiece(tiny_dir):
    return WordPiece.from_directory(tiny_dir)


@pytest.fixture
def interpreter(files, wordpiece):
    return Interpreter(files["float32"], encoder=wordpiece)


def keras_logits(bert, ids, first_length=None):
    count = len(ids)
    first = count if first_length is None else first_length
    return bert({"input_ids": np.array([ids]),
                 "attention_mask": np.ones([1, count], np.int32),
                 "token_type_ids": (np.arange(count) >= first)[np.newaxis].astype(int)
                 })[0].numpy()


def ids_of(length: int) -> list[int]:
    return [2, *np.random.default_rng(length).integers(5, 103, length - 2), 3]


def test_texts_ids_and_keras_agree(interpreter, wordpiece, bert):
    encoded = wordpiece.encode(TEXTS)
    logits = interpreter.predict(TEXTS)
    assert logits.shape == (4, 3)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(
        logits, interpreter.logits(encoded.ids, encoded.first_lengths))
    np.testing.assert_allclose(
        logits, [keras_logits(bert, ids) for ids in encoded.ids], atol=1e-4)


def test_pairs_are_told_apart_by_the_first_length(interpreter, wordpiece, bert):
    pairs = ["good", "a film", "really", "y"]
    encoded = wordpiece.encode(TEXTS, pairs)
    logits = interpreter.predict(TEXTS, pairs)
    for row, (ids, first) in enumerate(zip(encoded.ids, encoded.first_lengths,
                                           strict=True)):
        assert 0 < first < len(ids)
        np.testing.assert_allclose(logits[row], keras_logits(bert, ids, first),
                                   atol=1e-4)
        assert np.abs(interpreter.run(ids) - logits[row]).max() > 1e-2


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_changing_lengths_leave_nothing_behind(scheme, files):
    used = Interpreter(files[scheme])
    for length in (5, 32, 3, 17, 17, 5, 32, 2):
        fresh = Interpreter(files[scheme])
        np.testing.assert_array_equal(used.run(ids_of(length)),
                                      fresh.run(ids_of(length)))


def test_integer_logits_are_widened(files, bert):
    """One int8 step each, from the output's scale and zero point."""
    raw = litert.Interpreter(model_path=str(files["integer_wi8_ai8"]))
    output, = raw.get_output_details()
    scale, zero_point = output["quantization"]
    assert output["dtype"] == np.int8
    interpreter = Interpreter(files["integer_wi8_ai8"])
    for length in (2, 8, 17):
        logits = interpreter.run(ids_of(length))
        assert logits.dtype == np.float32
        steps = logits / scale + zero_point
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert steps.min() > -128.5 and steps.max() < 127.5
        example, = calibrate.examples_of([ids_of(length)], [length])
        runner = raw.get_signature_runner("serving_default")
        np.testing.assert_array_equal(np.round(steps), runner(**example)["logits"][0])
        np.testing.assert_allclose(logits, keras_logits(bert, ids_of(length)), atol=1.0)


def test_a_result_is_not_overwritten_by_the_next(interpreter):
    first = interpreter.run(ids_of(6))
    kept = first.copy()
    assert np.abs(interpreter.run([2, 50, 3]) - first).max() > 1e-3
    np.testing.assert_array_equal(first, kept)


def test_a_fixed_length_pads_on_the_right(files, interpreter):
    fixed = Interpreter(files["fixed"])
    assert fixed.fixed_length == 12
    assert interpreter.fixed_length is None
    for length in (12, 3, 7):
        np.testing.assert_allclose(fixed.run(ids_of(length)),
                                   interpreter.run(ids_of(length)), atol=1e-5)


def test_predict_cuts_texts_to_a_fixed_length(files, wordpiece):
    fixed = Interpreter(files["fixed"], encoder=wordpiece, max_length=30)
    text = "a great film it was really not bad and this movie is good i good"
    cut = wordpiece.encode([text], max_length=12).ids[0]
    assert len(cut) == 12
    np.testing.assert_array_equal(fixed.predict([text])[0], fixed.run(cut))


def test_predict_cuts_texts_to_max_length(files, wordpiece):
    short = Interpreter(files["float32"], encoder=wordpiece, max_length=4)
    np.testing.assert_array_equal(short.predict(["good film bad bad bad bad"]),
                                  short.predict(["good film"]))


@pytest.mark.parametrize("num_threads", [1, 2, None])
def test_threads_do_not_change_the_result(num_threads, files, interpreter):
    np.testing.assert_allclose(
        Interpreter(files["float32"], num_threads=num_threads).run(ids_of(9)),
        interpreter.run(ids_of(9)), atol=1e-6)


@pytest.mark.parametrize(("most", "counts"), [
    (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])])
def test_numbers_of_threads_double_up_to_the_most(most, counts):
    assert thread_counts(most) == counts


@pytest.mark.parametrize(("milliseconds", "fewest"), [
    ({1: 2.0, 2: 4.0, 4: 6.0}, 1), ({1: 6.0, 2: 4.0, 4: 2.0}, 4),
    ({1: 6.0, 2: 2.0, 4: 2.0}, 2), ({1: 6.0, 2: 2.0, 4: 4.0}, 2)])
def test_the_fewest_threads_that_are_fast_are_chosen(milliseconds, fewest, files,
                                                     monkeypatch):
    class Slow:
        fixed_length = 5
        now = 0.0

        def __init__(self, path, *, num_threads, known):
            self.seconds = 1e-3 * milliseconds[num_threads]

        def run(self, ids):
            assert len(ids) == 5
            Slow.now += self.seconds

    monkeypatch.setattr(interpreters, "Interpreter", Slow)
    monkeypatch.setattr(interpreters.time, "perf_counter", lambda: Slow.now)
    assert fewest_threads(files["fixed"], 4) == fewest


def test_a_model_of_few_positions_is_tried_with_fewer_tokens(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.convert(model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=9,
        max_positions=3)), "float32"))
    assert fewest_threads(path, 2) in (1, 2)
    assert Interpreter(path).run([2, 7, 3]).shape == (2,)


@pytest.mark.parametrize("num_threads", [0, -1])
def test_refuses_a_number_of_threads_below_one(num_threads, files):
    with pytest.raises(ValueError, match=f"Received: num_threads={num_threads}"):
        Interpreter(files["float32"], num_threads=num_threads)


@pytest.mark.parametrize("name", [*tflite.SCHEMES, "fixed"])
@pytest.mark.parametrize(("ids", "received"), [
    ([], "0 tokens"),
    (ids_of(POSITIONS + 1), f"{POSITIONS + 1} tokens"),
    (ids_of(300), "300 tokens"),
    ([2, 103, 3], "2 to 103"),
    ([2, 10**6, 3], "2 to 1000000"),
    ([2, 2**40, 3], f"2 to {2**40}"),
    ([2, -1, 3], "-1 to 3"),
], ids=["empty", "over positions", "far over", "one over", "over", "over int32",
        "negative"])
def test_refuses_ids_and_still_works(ids, received, name, files):
    interpreter = Interpreter(files[name])
    before = interpreter.run(ids_of(3))
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        interpreter.run(ids)
    np.testing.assert_array_equal(interpreter.run(ids_of(3)), before)
    with pytest.raises(ValueError, match="Received"):
        interpreter.run(ids)
    np.testing.assert_array_equal(
        interpreter.run(ids_of(8)), Interpreter(files[name]).run(ids_of(8)))


def test_a_refusal_says_no_more_after_many(files, monkeypatch):
    """LiteRT repeats all that it said before; a long report is left behind at last."""
    monkeypatch.setattr(litert_graphs, "_LONGEST_REPORT", 1000)
    interpreter = Interpreter(files["float32"])
    before = interpreter.run(ids_of(3))
    told = []
    for over in range(103, 143):
        with pytest.raises(ValueError) as refusal:
            interpreter.run([2, over, 3])
        told.append(str(refusal.value).replace(str(over), "over"))
    assert len(set(told)) == 1
    assert told[0].endswith("2 to over: gather index out of boundsNode number 4 "
                            "(GATHER) failed to invoke.")
    np.testing.assert_array_equal(interpreter.run(ids_of(3)), before)


@pytest.mark.parametrize("copies", [1, 2])
def test_threads_get_what_one_gets_alone(copies, files):
    interpreter = Interpreter(files["dynamic_wi8_afp32"], copies=copies, num_threads=1)
    asked = [ids_of(2 + n % 29) for n in range(600)]
    alone = [interpreter.run(ids) for ids in asked]
    bad = [2, 103, 3]

    def ask(number):
        if number % 10 == 0:  # a refusal in between
            with pytest.raises(ValueError, match="2 to 103"):
                interpreter.run(bad)
        return interpreter.run(asked[number])

    with ThreadPoolExecutor(8) as threads:
        np.testing.assert_array_equal(list(threads.map(ask, range(600))), alone)


def test_a_copy_is_made_when_none_is_free(files, monkeypatch):
    made = []
    own = litert_graphs.LiteRT._open
    monkeypatch.setattr(litert_graphs.LiteRT, "_open", lambda copy: (
        made.append(copy), own(copy)))
    interpreter = Interpreter(files["float32"], num_threads=1, copies=3)
    for _ in range(3):
        interpreter.run(ids_of(3))
    assert len(made) == 1
    barrier, run = threading.Barrier(3), litert_graphs.LiteRT.run

    def at_once(copy, values):
        barrier.wait(10)
        return run(copy, values)

    monkeypatch.setattr(litert_graphs.LiteRT, "run", at_once)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda n: interpreter.run(ids_of(n)), range(3, 9)))
    assert len(made) == 3


def test_a_file_written_anew_is_not_mixed_with_the_one_opened(files, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(files["float32"], path)
    interpreter = Interpreter(path, num_threads=1, copies=2)
    first = interpreter._free.get()  # as if another thread computed
    path.unlink()
    shutil.copy(files["fixed"], path)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(interpreter.run, ids_of(20))
        interpreter._free.put(first)
        np.testing.assert_array_equal(waiting.result(5),
                                      Interpreter(files["float32"]).run(ids_of(20)))


@pytest.mark.parametrize("copies", [0, -1])
def test_refuses_a_number_of_copies_below_one(copies, files):
    with pytest.raises(ValueError, match=f"num_threads=None, copies={copies}$"):
        Interpreter(files["float32"], copies=copies)


@pytest.mark.parametrize("first_length", [-1, 6])
def test_refuses_a_first_length_outside_of_the_ids(first_length, interpreter):
    with pytest.raises(ValueError, match=f"Received: first_length={first_length}"):
        interpreter.run(ids_of(5), first_length)


@pytest.mark.parametrize("contents", [
    b"", b"no model at all", b"\x1c\x00\x00\x00TFL3" + bytes(100)],
    ids=["empty", "text", "header only"])
def test_refuses_a_file_that_is_no_tflite(contents, tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match="Received: .*broken.tflite"):
        Interpreter(path)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_refuses_a_truncated_file(part, files, tmp_path):
    whole = files["float32"].read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(whole[:int(part * len(whole))])
    with pytest.raises(ValueError, match="Received: .*truncated.tflite"):
        Interpreter(path)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="Received: .*nowhere.tflite"):
        Interpreter(tmp_path / "nowhere.tflite")


def test_refuses_a_model_with_other_inputs(tmp_path):
    features = keras.Input([8], name="features")
    own = keras.Model(features, keras.layers.Dense(3)(features))
    path = tmp_path / "own.tflite"
    path.write_bytes(tflite.convert(own, "float32"))
    with pytest.raises(ValueError, match="input_ids.*Received: .*features"):
        Interpreter(path)


@pytest.mark.parametrize("names", [("input_ids",), ("input_ids", "attention_mask")])
@pytest.mark.parametrize(("length", "pad_id"), [(None, 0), (5, 0), (5, 1)])
def test_a_model_may_have_fewer_inputs(names, length, pad_id, tmp_path):
    """Its logits are the sums of what it reads, so that padding shows in them."""
    read = {name: keras.Input([None], dtype="int32", name=name) for name in names}
    sums = [tf.reduce_sum(tf.cast(value, tf.float32), axis=1, keepdims=True)
            for value in read.values()]
    path = tmp_path / "own.tflite"
    path.write_bytes(tflite.convert(keras.Model(read, tf.concat(sums, axis=1)),
                                    length=length))
    logits = Interpreter(path, pad_id=pad_id).run([7, 8, 9], first_length=2)
    padding = pad_id * (length - 3) if length else 0
    assert logits.tolist() == [24.0 + padding, 3.0][:len(names)]


def test_no_texts_have_no_logits(interpreter):
    for found in (interpreter.predict([]), interpreter.logits([], [])):
        assert (found.shape, found.dtype) == ((0, 3), np.float32)


def test_that_texts_are_cut_is_said_once(files, wordpiece, caplog):
    short = Interpreter(files["float32"], encoder=wordpiece, max_length=4)
    for text in ("bad", "good film bad bad", "bad bad bad bad"):
        short.predict([text])
    assert [record.getMessage() for record in caplog.records] == [
        "Texts are cut to 4 tokens; the rest of them has no part in the answer"]


def test_predict_without_an_encoder_says_what_to_pass(files):
    with pytest.raises(ValueError, match="tokenizer_from.*Received: encoder=None"):
        Interpreter(files["float32"]).predict(["a film"])


@pytest.mark.parametrize(("logits", "expected"), [
    ([0.0, 0.0], [0.5, 0.5]),
    ([0.0, np.log(3.0)], [0.25, 0.75]),
    ([1000.0, 0.0], [1.0, 0.0]),
    ([[0.0, 0.0], [-1000.0, -1000.0]], [[0.5, 0.5], [0.5, 0.5]]),
])
def test_softmax_over_the_last_axis(logits, expected):
    np.testing.assert_allclose(softmax(np.array(logits)), expected, atol=1e-12)


def test_no_text_at_all_gives_no_row(files, wordpiece):
    interpreter = Interpreter(files["float32"], encoder=wordpiece)
    assert interpreter.predict([]).shape == (0, 3)
    assert interpreter.logits([], []).shape == (0, 3)


@pytest.mark.parametrize("texts, pairs", [
    ("so bad", None), (["so bad"], "so"), (b"so bad", None)])
def test_one_text_is_no_list_of_letters(texts, pairs, files):
    class Encoder:
        """One that takes whatever it is given."""

        def encode(self, texts, pairs=None, *, max_length):
            raise AssertionError("Nothing is to be read.")

    interpreter = Interpreter(files["float32"], encoder=Encoder())
    with pytest.raises(ValueError, match="must be a list.*Received: "):
        interpreter.predict(texts, pairs)


@pytest.mark.usefixtures("converted_anew")
def test_a_file_that_gives_nan_says_so(bert, tmp_path, monkeypatch):
    broken = keras.models.clone_model(bert)
    broken.set_weights([weight * np.nan if weight.shape == (16, 3) else weight
                        for weight in bert.get_weights()])
    monkeypatch.setattr("tfopt.checks.check_finite", lambda *_: None)
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite.convert(broken, "float32"))
    with pytest.raises(ValueError, match="finite numbers.*Received: .*nan"):
        Interpreter(file, num_threads=1).run(ids_of(5))
