"""What tfopt writes, opened by MediaPipe itself."""

from __future__ import annotations

import client_tokenizer
import numpy as np
import pytest
from asked import client, scores

import tfopt
from tfopt import model as models
from tfopt.export.interpreter import softmax

pytestmark = pytest.mark.slow
NEAR = 1e-5
INT8 = "dynamic_wi8_afp32"
OLD = ".venv-clients-old"  # MediaPipe 0.10.14

# What a text has -> a text. docs/edge.md has the table of those that are read
# otherwise.
READ_ALIKE = {
    "ASCII": "Where IS my parcel?? (#12)", "white space": "my\tparcel\r\nnow",
    "nothing": "", "blanks": "   ",
    "Chinese": "我的包裹在哪里 parcel 𠀀",
    "emoji": "my parcel 😀😀 👍🏽 👩\u200d👩\u200d👧 🇩🇪 I ❤\ufe0f it",
    "quotes and dashes": "“where’s” my ‘parcel’ – … now— ¿que? a·b",
    "signs": "5€ £4 ₹5 x² 5° parcel™ a ≤ b", "sharp s": "straße order",
    "ligatures": "ﬁne parcel", "full-width letters": "ＰＡＲＣＥＬ",
    "Cyrillic, lower case": "привет parcel", "Greek without accents": "αβγ parcel",
    "kana without marks": "ここ parcel", "Arabic without marks": "من parcel",
    "Hebrew without points": "שלום parcel", "Devanagari without signs": "कम parcel",
    "words above 100 letters": "a" * 101 + " parcel",
}
READ_OTHERWISE = {
    "accents": "my café order", "accents, decomposed": "my cafe\u0301 order",
    "umlauts": "my über order", "capitals beyond ASCII": "ÜBER order",
    "Cyrillic capitals": "Привет parcel", "Cyrillic й": "мой parcel",
    "Greek accents": "που είναι parcel", "Greek capitals": "ΑΒΓ parcel",
    "Turkish": "İstanbul", "Vietnamese": "đơn hàng",
    "no-break space": "my\u00a0parcel", "thin space": "my\u2009parcel",
    "ideographic space": "my\u3000parcel", "line separator": "my\u2028parcel",
    "next line": "my\u0085parcel", "vertical tab": "my\x0bparcel",
    "zero-width space": "my\u200bparcel", "zero-width joiner": "my par\u200dcel",
    "byte-order mark": "\ufeffmy parcel", "soft hyphen": "par\u00adcel",
    "direction mark": "\u200fmy parcel", "control character": "my\x01parcel",
    "replacement character": "my\ufffdparcel",
    "Devanagari with signs": "मेरा पार्सल parcel", "Thai with signs": "ที่ parcel",
    "Arabic with marks": "أين parcel", "Hebrew with points": "שָׁלוֹם parcel",
    "kana with marks": "が パ parcel", "Hangul": "내 소포 parcel",
    "words above 100 bytes": "п" * 60 + " parcel",
    "names of special tokens": "my [SEP] parcel",
}


@pytest.mark.parametrize("scheme", [INT8, "float32"])
def test_200_texts_have_the_same_labels_and_scores(scheme, export, dev, labels,
                                                   logits_of):
    texts = [text for text in dev.texts if text.isascii()][:200]
    assert len(texts) == 200
    expected = softmax(logits_of(export(scheme), texts))
    assert np.ptp(expected.max(axis=1)) > 0.3  # else any model would do
    with client(export(scheme)) as mediapipe:
        answer = mediapipe.ask(texts=texts)
    found = np.array(answer["scores"])
    assert answer["labels"] == list(labels)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, atol=NEAR)


def test_a_text_of_2000_tokens_answers_and_the_next_one_too(export, logits_of):
    texts = ["word " * 2000, "where is my parcel??"]
    with client(export()) as mediapipe:
        found = scores(mediapipe, texts)
    assert found[0].sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found[1:], softmax(logits_of(export(), texts[1:])),
                               atol=NEAR)


def test_texts_that_are_read_otherwise_are_those_in_the_table(export, tokenizer):
    """By ids, which the scores show to be the client's."""
    texts = {**READ_ALIKE, **READ_OTHERWISE}
    ours = tokenizer.encode(list(texts.values()), max_length=128).ids
    theirs = [client_tokenizer.ids(text, tokenizer.words) for text in texts.values()]
    assert [what for what, *both in zip(texts, ours, theirs, strict=True)
            if list(both[0]) != both[1]] == list(READ_OTHERWISE)
    interpreter = tfopt.Interpreter(export(), num_threads=1)
    expected = softmax(np.stack([interpreter.run(ids) for ids in theirs]))
    with client(export()) as mediapipe:
        found = scores(mediapipe, texts.values())
    np.testing.assert_allclose(found, expected, atol=NEAR)
    with_ours = softmax(np.stack([interpreter.run(list(ids)) for ids in ours]))
    otherwise = np.abs(found - with_ours).max(axis=1) > NEAR
    assert [what for what, other in zip(texts, otherwise, strict=True) if other] == (
        list(READ_OTHERWISE))


def test_several_labels_have_scores_of_their_own(export, dev, logits_of):
    texts = [text for text in dev.texts if text.isascii()][:20]
    file = export(scores="sigmoid")
    with client(file) as mediapipe:
        found = scores(mediapipe, texts)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits_of(file, texts))),
                               atol=NEAR)


def test_a_fixed_length_is_padded_and_cut(export, dev, tokenizer):
    length, file = 16, export(length=16)
    texts = [text for text in dev.texts if text.isascii()][:20]
    encoded = tokenizer.encode(texts, max_length=length)
    assert {len(ids) == length for ids in encoded.ids} == {False, True}
    expected = softmax(tfopt.Interpreter(file, num_threads=1).logits(
        encoded.ids, encoded.first_lengths))
    with client(file) as mediapipe:
        found = scores(mediapipe, texts)
    np.testing.assert_allclose(found, expected, atol=NEAR)


def test_vectors_are_the_same_numbers(dev, tokenizer, logits_of, tmp_path):
    vectors = models.load("minilm", head=models.Head(outputs=None, reads="mean",
                                                     pooler=None))
    file = tmp_path / "vectors.tflite"
    file.write_bytes(tfopt.add_metadata(tfopt.convert(vectors), tokenizer))
    texts = [text for text in dev.texts if text.isascii()][:50]
    expected = logits_of(file, texts)
    with client(file, "embed") as mediapipe:
        np.testing.assert_array_equal(scores(mediapipe, texts).astype(np.float32),
                                      expected)
    with client(file, "embed_normalized") as mediapipe:
        np.testing.assert_allclose(
            scores(mediapipe, texts),
            expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_old_runtimes_need_tables_of_one_scale(export, dev, logits_of):
    """They read tables with a scale for each row wrongly, and say nothing.

    Products of 8 bits they round otherwise than LiteRT does today: where two scores are
    close, a label may be the other.
    """
    texts = [text for text in dev.texts if text.isascii()][:100]

    def same(file) -> float:
        with client(file, environment=OLD) as mediapipe:
            found = scores(mediapipe, texts)
        return float((found.argmax(axis=1)
                      == logits_of(file, texts).argmax(axis=1)).mean())

    assert same(export()) < 0.2
    assert same(export(for_old_runtimes=True)) >= 0.97
    assert same(export("float32")) == 1
