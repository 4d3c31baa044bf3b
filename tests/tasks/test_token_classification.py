"""Token classification: entities by hand, words on tokens, a model that learns them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt import data, model, tasks, train
from tfopt.backend import tf
from tfopt.data.places import Places
from tfopt.tasks import entities
from tfopt.tasks.token_classification import TaggedWords, TokenClassification
from tfopt.train import token_objective

TASK = TokenClassification(labels=("O", "B-per", "I-per", "B-loc", "I-loc"))


def corpus_of(*texts: str, path: str = "train.conll") -> data.Corpus:
    """Of texts such as "in/O Bonn/B-loc"."""
    words = [[word.split("/") for word in text.split()] for text in texts]
    spans, lines = [], [1]
    for text in words:
        own = []
        for word, _ in text:
            start = own[-1][1] + 1 if own else 0
            own.append((start, start + len(word)))
        spans.append(own)
        lines.append(lines[-1] + len(own) + 1)
    return data.Corpus(
        path=path, texts=[" ".join(word for word, _ in text) for text in words],
        pairs=None, labels=[tuple(tag for _, tag in text) for text in words],
        lines=lines[:-1], word_spans=spans)


def answering(tags: str, task: TokenClassification = TASK) -> np.ndarray:
    """Outputs that answer such tags, <float>[T, C]."""
    numbers = [task.labels.index(tag) for tag in tags.split()]
    return 5.0 * np.eye(len(task.labels), dtype=np.float32)[numbers]


# By hand, after conlleval's rules of where an entity starts and ends.
@pytest.mark.parametrize(("tags", "found"), [
    ("O O", []),
    ("B-per I-per O B-loc", [("per", 0, 2), ("loc", 3, 4)]),
    ("B-per B-per", [("per", 0, 1), ("per", 1, 2)]),
    ("I-per I-per O I-loc", [("per", 0, 2), ("loc", 3, 4)]),  # without B-
    ("B-per I-loc I-loc", [("per", 0, 1), ("loc", 1, 3)]),  # of another type
    ("O I-per B-per", [("per", 1, 2), ("per", 2, 3)]),
    ("B-per I-per E-per S-loc", [("per", 0, 3), ("loc", 3, 4)]),
    ("E-per E-per", [("per", 0, 1), ("per", 1, 2)]),
    ("S-per I-per", [("per", 0, 1), ("per", 1, 2)]),
    ("B-a-b I-a-b", [("a-b", 0, 2)]),
])
def test_entities_are_those_of_conlleval(tags, found):
    assert entities.spans(tags.split()) == found


@pytest.mark.parametrize("wrong", ["", "B", "B-", "o", "X-per", "per", "BI-per", "-p"])
def test_other_tags_are_refused_by_file_and_line(wrong):
    with pytest.raises(ValueError, match="^A tag must be O, or B-"):
        entities.parse(wrong)
    corpus = corpus_of("a/O", "b/O c/O")
    wrong_corpus = dataclasses.replace(corpus, labels=[("O",), ("O", wrong)])
    for reads in (TokenClassification.from_corpus, TASK.evaluation_targets):
        message = rf"^train.conll:4: .*Received: '{wrong}'$"
        with pytest.raises(ValueError, match=message):
            reads(wrong_corpus)


def test_labels_are_in_order_and_a_checkpoints_own_where_it_has_them():
    corpus = corpus_of("a/I-per b/O c/B-per", "d/B-loc")
    assert TokenClassification.from_corpus(corpus).labels == (
        "O", "B-loc", "B-per", "I-per")
    known = ["B-loc", "I-loc", "B-per", "I-per", "O"]
    assert list(TokenClassification.from_corpus(corpus, known).labels) == known
    with pytest.raises(ValueError, match="two tags or more"):
        TokenClassification.from_corpus(corpus_of("a/O"))
    plain = data.Corpus(path="a.tsv", texts=["a"], pairs=None, labels=["x"], lines=[2])
    with pytest.raises(ValueError, match="^a.tsv: .*words with tags"):
        TokenClassification.from_corpus(plain)


def test_figures_by_hand():
    wanted = [TASK.targets(corpus_of(text))[0] for text in (
        "a/B-per b/I-per c/O d/B-loc", "a/O b/B-loc c/I-loc")]
    outputs = [answering("B-per I-per O B-per"), answering("O B-loc O")]
    found = TASK.quality(outputs, wanted)
    # Answered 3, wanted 3, right is the first person: its words and its type.
    assert found["entity_precision"] == found["entity_recall"] == pytest.approx(1 / 3)
    assert found["entity_f1"] == pytest.approx(1 / 3)
    assert found["token_accuracy"] == pytest.approx(5 / 7)
    classes = TASK.by_class(outputs, wanted)
    assert classes["per"] == {"precision": 0.5, "recall": 1.0,
                              "f1": pytest.approx(2 / 3), "support": 1.0}
    assert classes["loc"]["support"] == 2.0 and classes["loc"]["f1"] == 0.0


def encoded_of(corpus: data.Corpus, tiny_dir, **options) -> data.Encoded:
    tokenizer = data.tokenizer_from(tiny_dir.parent / "tiny_bert_tokens")
    return tokenizer.encode(corpus.texts, places=True, **options)


def test_a_word_is_learned_by_its_first_token_alone(tiny_dir):
    corpus = corpus_of("unaffable/B-per \x07/I-per film/O")
    encoded = encoded_of(corpus, tiny_dir)
    words, = TASK.on_tokens(TASK.targets(corpus), corpus, encoded)
    classes = np.asarray(words)
    assert len(words) == len(encoded.ids[0]) and classes.dtype == np.int32
    assert words.tokens[:2] == (1, -1) and words.cut == 0
    assert np.flatnonzero(classes >= 0).tolist() == [1, words.tokens[2]]
    assert classes[1] == 1 and classes[words.tokens[2]] == 0
    assert TASK.remarks("dev", [words], 0) == [
        "1 of dev's 3 words have no token, such as a control character alone: they are "
        "not learned from, and count as answered by O."]


def test_a_word_without_a_token_is_missed_and_moves_no_other(tiny_dir):
    corpus = corpus_of("film/B-per \x07/I-per bad/B-loc")
    encoded = encoded_of(corpus, tiny_dir)
    targets = TASK.on_tokens(TASK.evaluation_targets(corpus), corpus, encoded)
    rows = np.tile(answering("O"), [len(encoded.ids[0]), 1])
    rows[list(targets[0].tokens)[::2]] = answering("B-per B-loc")
    found = TASK.quality([rows], targets)
    assert found["token_accuracy"] == pytest.approx(2 / 3)
    assert found["entity_f1"] == pytest.approx(0.5)  # B-loc; B-per ends too early


def test_tags_that_are_cut_off_are_said_and_count_as_missed(tiny_dir):
    corpus = corpus_of("new/O card/B-per from/B-loc", "new/O")
    encoded = encoded_of(corpus, tiny_dir, max_length=4)
    targets = TASK.on_tokens(TASK.targets(corpus), corpus, encoded)
    assert [target.cut for target in targets] == [1, 0]
    said, = TASK.remarks("dev", targets, encoded.truncated)
    assert said.startswith("1 of dev's 4 words are cut off with their tags")
    rows = [answering("O O B-per O"), answering("O O O")]
    assert TASK.quality(rows, targets)["entity_recall"] == 0.5


def test_a_tag_that_train_lacks_counts_as_wrong(tiny_dir):
    corpus = corpus_of("new/B-ship card/B-per", path="dev.conll")
    with pytest.raises(ValueError, match="^dev.conll:1: .*Received: 'B-ship'"):
        TASK.targets(corpus)
    assert TASK.unknown_labels(corpus) == [("B-ship",)]
    targets = TASK.on_tokens(TASK.evaluation_targets(corpus), corpus,
                             encoded_of(corpus, tiny_dir))
    assert np.asarray(targets[0]).tolist() == [-1, -1, 1, -1]
    found = TASK.quality([answering("O B-per B-per O")], targets)
    assert (found["entity_precision"], found["entity_recall"]) == (0.5, 0.5)
    assert TASK.by_class([answering("O B-per B-per O")], targets)["ship"] == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1.0}


def test_answers_name_places_in_the_text_as_it_was_given(tiny_dir):
    text = " film bad,  so unaffable"
    tokenizer = data.tokenizer_from(tiny_dir.parent / "tiny_bert_tokens")
    encoded = tokenizer.encode([text], places=True)
    places = encoded.places[0]
    first = places.first_tokens()
    rows = np.tile(answering("I-loc"), [len(encoded.ids[0]), 1])  # of no word's first
    rows[first] = answering("B-per I-per O O B-loc")
    rows[first[1]] *= 0.2
    answer, = TASK.decode([rows], encoded)
    person, place = answer["spans"]
    assert person == {"label": "per", "start": 1, "end": 9, "text": "film bad",
                      "score": person["score"]}
    assert place["text"] == "unaffable" == text[place["start"]:place["end"]]
    one, other = (np.exp(x) / (np.exp(x) + 4) for x in (5.0, 1.0))
    assert person["score"] == pytest.approx((one + other) / 2, rel=1e-5)
    assert TASK.decode([np.zeros([len(encoded.ids[0]), 5])], encoded) == [{"spans": []}]
    with pytest.raises(ValueError, match="Received: outputs without places"):
        TASK.decode([rows])
    with pytest.raises(ValueError, match="4 classes. Received: 5 labels"):
        TASK.decode([rows[:, 1:]], encoded)


def test_a_text_without_words_has_no_entities():
    places = Places("", ((0, 0), (0, 0)), (-1, -1))
    encoded = data.Encoded(ids=[[2, 3]], first_lengths=[2], places=[places])
    assert TASK.decode([answering("B-per B-per")], encoded) == [{"spans": []}]


def test_what_is_watched_is_the_least_sure_token():
    rows = answering("O B-per")
    rows[1] *= 0.2
    seen, = TASK.signals([rows])
    assert seen.confidence == pytest.approx(np.e / (np.e + 4)) and seen.label is None
    even, = TASK.signals([np.zeros([3, 5])])
    assert even.entropy == pytest.approx(np.log(5))


def test_training_counts_entities_as_the_report_does():
    random = np.random.default_rng(0)
    parsed = [("O", ""), ("B", "a"), ("I", "a"), ("B", "b"), ("I", "b"), ("E", "a"),
              ("S", "b")]
    task = TokenClassification(labels=tuple(
        kind if kind == "O" else f"{kind}-{type_}" for kind, type_ in parsed))
    metric = token_objective.EntityF1(parsed)
    wanted = random.integers(-1, 7, [60, 9])
    wanted[:, 0] = np.maximum(wanted[:, 0], 0)
    likeliest = np.where(random.random([60, 9]) < 0.8, np.maximum(wanted, 0),
                         random.integers(0, 7, [60, 9]))
    outputs = np.eye(7, dtype=np.float32)[likeliest]
    for part in np.split(np.arange(60), 4):  # of one, the weights pass over the last
        metric.update_state(
            tf.constant(np.concatenate([wanted[part], wanted[:1]]), tf.int32),
            tf.constant(np.concatenate([outputs[part], outputs[:1]])),
            [1.0] * 15 + [0.0])
    found = task.quality(outputs, wanted)["entity_f1"]
    assert 0.3 < found < 0.95
    assert float(metric.result()) == pytest.approx(found, rel=1e-5)
    compiled = tf.function(metric._entities, jit_compile=True)
    begins, _ = compiled(tf.constant(likeliest, tf.int32), tf.constant(wanted >= 0))
    assert begins.shape == [60, 9]


def test_texts_without_a_tag_learn_from_the_guess_of_visible_tokens():
    outputs = tf.constant(np.stack([answering("O B-per I-per")] * 2))
    visible = tf.constant([[1, 1, 1], [1, 1, 0]])
    targets = tf.constant([[-1, 0, -1], [-1, -1, -1]])
    assert TASK.with_guesses(outputs, targets, visible).numpy().tolist() == [
        [-1, 0, -1], [0, 1, -1]]
    assert TASK.with_guesses(outputs, tf.constant([-1, -1]), visible).numpy().tolist(
        ) == [[0, 1, 2], [0, 1, -1]]
    loss = TASK.example_loss(outputs, targets, visible).numpy()
    one = np.log(np.exp(5) + 4)
    np.testing.assert_allclose(loss, [one, one - 5], rtol=1e-4)


def test_the_loss_of_a_text_is_the_mean_of_its_tagged_tokens():
    outputs = tf.constant(answering("O O O")[np.newaxis])
    found = token_objective.hard(outputs, tf.constant([[0, 1, -1]])).numpy()
    np.testing.assert_allclose(found, [np.log(np.exp(5) + 4) - 2.5], rtol=1e-5)
    assert token_objective.hard(outputs, tf.constant([-1])).numpy() == [0.0]


def test_a_published_model_of_tags_is_of_this_task(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"architectures": ["BertForTokenClassification"]}')
    assert tasks.read(tmp_path, TASK.labels) == TASK
    assert tasks.read(tmp_path) is None
    with pytest.raises(ValueError, match=f"A tag must .*Received: 'x', of {tmp_path}"):
        tasks.read(tmp_path, ["O", "x"])
    config.write_text('{"architectures": ["BertForSequenceClassification"]}')
    assert tasks.read(tmp_path, ["a", "b"]).name() == "classification"


def learned_words() -> tuple[data.Encoded, list[TaggedWords]]:
    """Texts whose words above 30 are of a person."""
    random = np.random.default_rng(0)
    ids, targets = [], []
    for _ in range(48):
        words = random.integers(5, 60, random.integers(3, 9))
        ids.append([2, *words.tolist(), 3])
        classes = np.array([-1, *(words > 30), -1], np.int32)
        tags = tuple(TASK.labels[number] for number in classes[1:-1])
        targets.append(TaggedWords(tags, tuple(range(1, len(words) + 1)), classes))
    return data.Encoded(ids=ids, first_lengths=[len(i) for i in ids]), targets


def test_a_model_learns_words_alone_and_from_a_teacher():
    encoded, targets = learned_words()
    config = model.EncoderConfig.uniform(
        hidden_size=32, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=64,
        max_positions=16, hidden_dropout=0.0)
    teacher, student = (model.build(config, TASK.head(), seed) for seed in (0, 1))
    batches = data.Batches(encoded, targets, batch_size=8, shuffle_seed=0,
                           per_token=True)
    history = train.fit(teacher, batches, batches, train.Settings(
        epochs=5, learning_rate=1e-2), goal=TASK.objective())
    assert max(epoch["val_entity_f1"] for epoch in history) > 0.95
    unlabelled = data.Batches(encoded, [None] * 48, batch_size=8, shuffle_seed=0,
                              per_token=True)
    goal = train.Distillation(hard_weight=0.0).goal(teacher, of=TASK.objective())
    train.fit(student, unlabelled, None, train.Settings(epochs=5, learning_rate=1e-2),
              goal=goal)
    (inputs, wanted), *_ = data.Batches(encoded, targets, batch_size=48, per_token=True
                                        ).dataset()
    assert TASK.quality(student(inputs).numpy(), wanted.numpy())["entity_f1"] > 0.9
