"""The builder of inputs, by hand; the same formula in NumPy and TensorFlow's hands."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tfopt import inputs

PAIR, SHORT = [2, 7, 8, 3, 9, 3], [2, 7, 3]


def lists(arrays):
    return {name: array.tolist() for name, array in arrays.items()}


def test_a_pair_and_a_shorter_text_by_hand():
    built = inputs.build([PAIR, SHORT], [4, 3])
    assert lists(built) == {
        "input_ids": [[2, 7, 8, 3, 9, 3], [2, 7, 3, 0, 0, 0]],
        "attention_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]],
        "token_type_ids": [[0, 0, 0, 0, 1, 1], [0] * 6]}
    assert list(built) == ["input_ids", "attention_mask", "token_type_ids"]
    assert {array.dtype for array in built.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("names", [("input_ids", "attention_mask"), ("input_ids",),
                                   ("token_type_ids", "input_ids")])
def test_only_the_inputs_that_a_model_has_are_built_in_its_order(names):
    built = inputs.build([PAIR], [4], names)
    whole = inputs.build([PAIR], [4])
    assert tuple(built) == names
    assert lists(built) == {name: whole[name].tolist() for name in names}


def test_the_length_and_the_pad_id_are_as_asked():
    built = inputs.build([SHORT], [3], length=5, pad_id=1)
    assert lists(built) == {"input_ids": [[2, 7, 3, 1, 1]],
                            "attention_mask": [[1, 1, 1, 0, 0]],
                            "token_type_ids": [[0] * 5]}


def test_ids_may_be_an_array():
    ids = np.arange(6).reshape(2, 3)
    built = inputs.build(ids, np.array([3, 1]))
    np.testing.assert_array_equal(built["input_ids"], ids)
    assert built["token_type_ids"].tolist() == [[0, 0, 0], [0, 1, 1]]


def test_examples_stand_alone_at_their_own_lengths():
    encoded = SimpleNamespace(ids=[PAIR, SHORT], first_lengths=[4, 3])
    first, second = inputs.examples(encoded, ("input_ids", "token_type_ids"))
    assert lists(first) == {"input_ids": [PAIR], "token_type_ids": [[0, 0, 0, 0, 1, 1]]}
    assert lists(second) == {"input_ids": [SHORT], "token_type_ids": [[0, 0, 0]]}


@pytest.mark.parametrize(("ids", "first", "options", "received"), [
    ([], [], {}, "0"),
    ([[2], []], [1, 0], {}, "0 tokens, length=None"),
    ([SHORT, PAIR], [3, 4], {"length": 5}, "6 tokens, length=5"),
    ([SHORT], [4], {}, "first_length=4 of 3 tokens"),
    ([SHORT], [-1], {}, "first_length=-1 of 3 tokens"),
    ([[2, 2**31, -4]], [3], {}, f"ids -4 to {2**31}"),
    ([SHORT], [3], {"names": ("input_ids", "words")}, "names=input_ids, words"),
])
def test_what_no_model_can_read_is_refused(ids, first, options, received):
    with pytest.raises(ValueError) as refusal:
        inputs.build(ids, first, **options)
    assert str(refusal.value).endswith(f"Received: {received}")


def test_numbers_of_examples_must_agree():
    with pytest.raises(ValueError, match="longer|shorter"):
        inputs.build([SHORT, SHORT], [3])
