"""Examples -> tf.data: complete, seeded, resumable, and padded little."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import data

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def encoded_of(lengths):
    """Examples of these lengths; all ids of example i are i + 1."""
    return data.Encoded(ids=[[i + 1] * n for i, n in enumerate(lengths)],
                        first_lengths=list(lengths))


LENGTHS = np.random.default_rng(1).integers(2, 40, 37).tolist()
BATCHES_OF_37 = 8  # of 5


def batches_of(lengths=LENGTHS, batch_size=5, seed: int | None = 0, **others):
    return data.Batches(encoded_of(lengths), list(range(len(lengths))),
                        batch_size=batch_size, shuffle_seed=seed, **others)


def order(batches, epoch):
    return np.concatenate(batches.epoch_plan(epoch)).tolist()


def labels(dataset):
    return [label.numpy().tolist() for _, label in dataset]


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("count, batch_size", [(37, 5), (35, 5), (3, 5), (700, 4)])
def test_every_example_is_in_each_epoch_once(count, batch_size, seed):
    batches = batches_of([2 + i % 9 for i in range(count)], batch_size, seed)
    for epoch in (0, 1):
        assert sorted(order(batches, epoch)) == list(range(count))
    sizes = [len(batch) for batch in batches.epoch_plan(0)]
    assert max(sizes) <= batch_size
    assert len(sizes) == batches.steps_per_epoch == -(-count // batch_size)
    assert len(batches) == count


def test_the_dataset_holds_each_text_with_its_own_label():
    seen = {}
    for inputs, label in batches_of().dataset():
        for ids, class_id in zip(inputs["input_ids"].numpy(), label.numpy(),
                                 strict=True):
            seen[int(class_id)] = [i for i in ids.tolist() if i]
    assert seen == dict(enumerate(encoded_of(LENGTHS).ids))


def test_the_same_seed_gives_the_same_order_in_each_epoch():
    for epoch in range(3):
        assert order(batches_of(), epoch) == order(batches_of(), epoch)


def test_other_epochs_and_other_seeds_have_other_orders():
    orders = [order(batches_of(seed=seed), epoch)
              for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(map(tuple, orders))) == 6


def test_shuffled_batches_do_not_come_sorted_by_length():
    lengths = [max(LENGTHS[i] for i in batch)
               for batch in batches_of().epoch_plan(0)]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_without_a_seed_the_order_is_one_and_by_length():
    batches = batches_of(seed=None)
    lengths = [LENGTHS[i] for i in order(batches, 0)]
    assert lengths == sorted(LENGTHS)
    assert order(batches, 0) == order(batches, 5)


@pytest.mark.parametrize("pad_to, width", [(None, 16), (40, 40)])
def test_batches_are_padded_to_a_multiple_of_8_or_to_the_length_asked(pad_to, width):
    batches = batches_of([3, 9, 4], 3, pad_to=pad_to)
    inputs, _ = next(iter(batches.dataset()))
    assert {name: tuple(inputs[name].shape) for name in INPUTS} == dict.fromkeys(
        INPUTS, (3, width))


@pytest.mark.parametrize("length, multiple, width", [
    (7, 8, 8), (8, 8, 8), (9, 8, 16), (17, 8, 24), (9, 32, 32), (33, 32, 64),
    (5, 1, 5)])
def test_padding_stops_at_the_next_multiple(length, multiple, width):
    inputs, _ = next(iter(batches_of([length], 1, pad_multiple=multiple).dataset()))
    assert inputs["input_ids"].shape == (1, width)


def test_masks_show_the_ids_and_types_the_second_text():
    pair = data.Encoded(ids=[[2, 7, 8, 3, 9, 3], [2, 7, 3]], first_lengths=[4, 3])
    inputs = next(iter(data.Batches(pair, batch_size=2, pad_to=8).dataset()))
    # By length: the shorter example first.
    expected = {
        "input_ids": [[2, 7, 3, 0, 0, 0, 0, 0], [2, 7, 8, 3, 9, 3, 0, 0]],
        "attention_mask": [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]],
        "token_type_ids": [[0] * 8, [0, 0, 0, 0, 1, 1, 0, 0]],
    }
    assert {name: value.numpy().tolist() for name, value in inputs.items()} == expected
    assert {value.dtype.name for value in inputs.values()} == {"int32"}


@pytest.mark.parametrize(("options", "fill"), [({}, 1), ({"pad_id": 0}, 0)])
def test_padding_and_inputs_are_the_tokenizers_and_the_models(options, fill):
    short = data.Encoded(ids=[[2, 7], [2, 7, 3]], first_lengths=[2, 3], pad_id=1)
    batches = data.Batches(data.join([short, short]), batch_size=4, pad_multiple=1,
                           names=("input_ids", "attention_mask"), **options)
    inputs = next(iter(batches.dataset()))
    assert {name: value.numpy().tolist() for name, value in inputs.items()} == {
        "input_ids": [[2, 7, fill]] * 2 + [[2, 7, 3]] * 2,
        "attention_mask": [[1, 1, 0]] * 2 + [[1, 1, 1]] * 2}


@pytest.mark.parametrize("first_step", [0, 1, 7, 8, 9, 16, 23, 24, 30])
def test_a_resumed_dataset_is_the_tail_of_the_unbroken_one(first_step):
    unbroken = labels(batches_of().dataset(epochs=3))
    assert len(unbroken) == 3 * BATCHES_OF_37
    resumed = labels(batches_of().dataset(epochs=3, first_step=first_step))
    assert resumed == unbroken[first_step:]


def test_a_resumed_dataset_has_the_same_inputs_over_an_epochs_end():
    unbroken = list(batches_of().dataset(epochs=2))[6:]
    resumed = list(batches_of().dataset(epochs=2, first_step=6))
    for (before, _), (after, _) in zip(unbroken, resumed, strict=True):
        for name in INPUTS:
            np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_skewed_lengths_cost_little_padding(seed):
    random = np.random.default_rng(2)
    lengths = np.clip(random.lognormal(2.7, 0.8, 1600), 3, 128).astype(int)

    def padded(plan):
        return sum(len(batch) * (-(-lengths[batch].max() // 8) * 8) for batch in plan)

    bucketed = batches_of(lengths.tolist(), 16, seed)
    unbucketed = np.split(random.permutation(1600), 100)
    assert padded(bucketed.epoch_plan(0)) < 1.3 * lengths.sum()
    assert padded(unbucketed) > 2 * lengths.sum()
    tokens = sum(np.size(inputs["input_ids"]) for inputs, _ in bucketed.dataset())
    assert tokens == padded(bucketed.epoch_plan(0))


def test_a_smaller_window_mixes_the_lengths_of_a_batch():
    lengths = np.random.default_rng(3).integers(3, 100, 1600)

    def spread(window):
        plan = batches_of(lengths.tolist(), 16, sort_window=window).epoch_plan(0)
        assert sorted(np.concatenate(plan)) == list(range(1600))
        return np.mean([np.std(lengths[batch]) for batch in plan])

    spreads = [spread(window) for window in (1, 4, 16, 64)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] > 0.9 * lengths.std()
    assert spreads[-1] < 0.05 * lengths.std()


@pytest.mark.parametrize("seed", [None, 0])
def test_dropping_the_remainder_gives_static_shapes(seed):
    batches = batches_of(seed=seed, pad_to=40, drop_remainder=True)
    dataset = batches.dataset()
    inputs, label = dataset.element_spec
    assert {tuple(inputs[name].shape) for name in INPUTS} == {(5, 40)}
    assert tuple(label.shape) == (5,)
    assert [len(ids) for ids in labels(dataset)] == [5] * 7
    assert batches.steps_per_epoch == 7


def test_without_it_the_last_batch_is_smaller():
    assert sorted(len(ids) for ids in labels(batches_of().dataset())) == [2] + [5] * 7


def test_without_labels_there_are_inputs_alone():
    batches = data.Batches(encoded_of([3, 4]), batch_size=2)
    (inputs,) = list(batches.dataset())
    assert sorted(inputs) == sorted(INPUTS)


def test_labels_are_whole_numbers_of_32_bits():
    _, label = next(iter(batches_of().dataset()))
    assert label.dtype.name == "int32"


@pytest.mark.parametrize("lengths, arguments, received", [
    ([3], {"batch_size": 0}, "batch_size=0, sort_window=64, pad_multiple=8"),
    ([3], {"batch_size": -1}, "batch_size=-1, sort_window=64, pad_multiple=8"),
    ([3], {"sort_window": 0}, "batch_size=5, sort_window=0, pad_multiple=8"),
    ([3], {"pad_multiple": 0}, "batch_size=5, sort_window=64, pad_multiple=0"),
    ([], {}, "0 examples, batch_size=5"),
    ([3], {"drop_remainder": True}, "1 examples, batch_size=5"),
    ([3, 9], {"pad_to": 8}, "9 tokens, pad_to=8"),
])
def test_batches_that_cannot_be_made_are_refused(lengths, arguments, received):
    with pytest.raises(ValueError) as refusal:
        batches_of(lengths, **arguments)
    assert str(refusal.value).endswith(f"Received: {received}")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_class_numbers_of_another_count_are_refused(count):
    with pytest.raises(ValueError,
                       match=f"Received: {count} targets, 2 examples$"):
        data.Batches(encoded_of([3, 4]), [0] * count)


@pytest.mark.parametrize(("targets", "dtype"), [
    ([0, -1, 2], "int32"), ([0.5, float("nan"), -2.0], "float32"),
    (np.array([1.0, 2.0, 3.0]), "float32"), (np.array([1, 2, 3], np.int64), "int32")])
def test_targets_keep_their_kind(targets, dtype):
    batches = data.Batches(encoded_of([3, 4, 5]), targets, batch_size=3)
    (_, found), = batches.dataset()
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found, np.asarray(targets, dtype))


def test_targets_may_be_rows_and_one_may_be_missing():
    batches = data.Batches(encoded_of([3, 4, 5]), [[0, 1], None, [1, 1]], batch_size=3)
    (_, found), = batches.dataset()
    assert found.dtype.name == "int32"
    assert found.numpy().tolist() == [[0, 1], [-1, -1], [1, 1]]
    (_, found), = data.Batches(encoded_of([3, 4]), [None, 0.5]).dataset()
    np.testing.assert_array_equal(found, np.array([np.nan, 0.5], np.float32))
    (_, found), = data.Batches(encoded_of([3, 4]), [None, None]).dataset()
    assert found.numpy().tolist() == [-1, -1]


@pytest.mark.parametrize("pad_to", [None, 12])
def test_targets_of_tokens_are_padded_as_ids_are(pad_to):
    """The longest example is in one of two batches, of which each is of its length."""
    lengths = [2, 3, 9, 10]
    encoded = encoded_of(lengths)
    wanted = [list(range(n)) for n in lengths]
    batches = data.Batches(encoded, wanted, batch_size=2, pad_to=pad_to,
                           pad_multiple=4, per_token=True)
    seen = []
    for inputs, targets in batches.dataset():
        assert targets.shape == inputs["input_ids"].shape
        visible = inputs["attention_mask"].numpy() == 1
        assert np.all(targets.numpy()[~visible] == -1)
        seen += [row[mask].tolist() for row, mask in zip(
            targets.numpy(), visible, strict=True)]
    assert seen == wanted
    vectors = [None if n == 3 else np.full([n, 2], 0.5) for n in lengths]
    (_, found), _ = data.Batches(encoded, vectors, batch_size=2, pad_multiple=4,
                                 per_token=True).dataset()
    assert found.shape == [2, 4, 2] and np.isnan(found[1]).all()
    assert found[0, :, 0].numpy().tolist()[:2] == [0.5, 0.5] and np.isnan(found[0, 2:]
                                                                          ).all()


@pytest.mark.parametrize(("targets", "options", "received"), [
    ([[1], [1, 2]], {}, r"shapes \[\(1,\), \(2,\)\]"),
    ([[1, 2, 3], [1, 2, 3]], {"per_token": True}, "3 for 4 tokens"),
    ([1, 2], {"per_token": True}, r"shapes .*"),
])
def test_targets_of_several_shapes_are_refused(targets, options, received):
    with pytest.raises(ValueError, match=f"Received: {received}$"):
        data.Batches(encoded_of([3, 4]), targets, **options)


def test_logits_travel_with_their_examples():
    logits = np.arange(2 * len(LENGTHS)).reshape(-1, 2)
    batches = batches_of()
    carrying = batches.with_teacher_logits(logits)
    seen = {}
    for inputs, (class_ids, rows) in carrying.dataset(epochs=1):
        assert rows.dtype.name == "float32"
        for ids, class_id, row in zip(inputs["input_ids"].numpy(), class_ids.numpy(),
                                      rows.numpy(), strict=True):
            assert ids[0] == class_id + 1
            seen[int(class_id)] = row.tolist()
    assert seen == dict(enumerate(logits.tolist()))
    assert labels(batches.dataset())  # those given are left without


def test_logits_without_labels_come_with_class_ids_below_zero():
    batches = data.Batches(encoded_of([3, 4]), batch_size=2).with_teacher_logits(
        [[1.0, 2.0], [3.0, 4.0]])
    (_, (class_ids, logits)), = batches.dataset()
    assert class_ids.numpy().tolist() == [-1, -1]
    assert logits.numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 2)])
def test_logits_of_other_examples_are_refused(shape):
    with pytest.raises(ValueError, match="Received: logits of shape.*2 examples of "
                       "7 tokens$"):
        data.Batches(encoded_of([3, 4])).with_teacher_logits(np.zeros(shape))


def test_logits_of_tokens_travel_with_their_examples():
    lengths = [3, 9, 2]
    flat = np.arange(28, dtype=np.float32).reshape([14, 2])
    batches = data.Batches(encoded_of(lengths), batch_size=2, pad_multiple=4
                           ).with_teacher_logits(flat)
    starts, seen = np.cumsum([0, *lengths]), []
    for inputs, (_, logits) in batches.dataset():
        assert logits.shape == [*inputs["input_ids"].shape, 2]
        counts = inputs["attention_mask"].numpy().sum(axis=1)
        for row, count in zip(logits.numpy(), counts, strict=True):
            place = lengths.index(count)
            np.testing.assert_array_equal(row[:count], flat[starts[place]:][:count])
            assert not row[count:].any()
            seen.append(place)
    assert sorted(seen) == [0, 1, 2]


def test_each_once_leaves_no_example_out():
    batches = batches_of(drop_remainder=True)
    found = {}
    for index, inputs in batches.each_once():
        assert len(index) <= 5
        for number, ids in zip(index, inputs["input_ids"].numpy(), strict=True):
            assert number not in found
            found[number] = [i for i in ids.tolist() if i]
    assert found == dict(enumerate(encoded_of(LENGTHS).ids))


def test_the_fingerprint_tells_examples_apart_and_nothing_else():
    assert batches_of([3, 4]).fingerprint() == batches_of(
        [3, 4], batch_size=1, seed=5, pad_to=8).fingerprint()
    pairs = [data.Encoded(ids=ids, first_lengths=lengths) for ids, lengths in (
        ([[1, 2], [3]], [2, 1]), ([[1, 2], [4]], [2, 1]), ([[1], [2, 3]], [1, 2]),
        ([[1, 2], [3]], [1, 1]), ([[3], [1, 2]], [1, 2]))]
    assert len({data.Batches(pair).fingerprint() for pair in pairs}) == len(pairs)
