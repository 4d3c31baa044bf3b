"""Directories of sentence-transformers: where the encoder is, and how it is pooled."""

from __future__ import annotations

import json
import shutil

import pytest

from tfopt import checkpoint_names, data, model, sentence_files
from tfopt.pipeline.fine_tuning import FineTuning
from tfopt.pipeline.options import DEFAULT_LENGTH, Data
from tfopt.sentence_files import Pooling, pooling_of

KINDS = "sentence_transformers.models."
MEAN = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False}


@pytest.fixture
def sentences(tmp_path, tiny_dir):
    """Writes a directory: modules, the pooling's fields, further files."""
    def write(*kinds, pooling=MEAN, place="", **files):
        kinds = kinds or ("Transformer", "Pooling", "Normalize")
        places = [place, *(f"{number}_{kind}" for number, kind in enumerate(kinds)
                           if number)]
        shutil.copytree(tiny_dir, tmp_path / place, dirs_exist_ok=True)
        found = {"modules": [
            {"idx": number, "name": str(number), "path": path, "type": KINDS + kind}
            for number, (path, kind) in enumerate(zip(places, kinds, strict=True))]}
        for name, contents in (found | files).items():
            (tmp_path / f"{name}.json").write_text(json.dumps(contents))
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        return tmp_path

    return write


def refusal(directory) -> str:
    with pytest.raises(ValueError) as caught:
        pooling_of(directory)
    assert "Received: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("pooling", "reads"), [
    (MEAN, "mean"), ({"pooling_mode_cls_token": True, "include_prompt": True}, "first"),
    ({"pooling_mode": "cls"}, "first"), ({"pooling_mode": "mean"}, "mean"),
    ({"pooling_mode": ["mean"]}, "mean")])
def test_the_pooling_is_read(sentences, pooling, reads):
    directory = sentences(pooling=pooling)
    assert pooling_of(directory) == Pooling(reads=reads, normalize=True)
    directory = sentences("Transformer", "Pooling", pooling=pooling)
    assert pooling_of(directory) == Pooling(reads=reads)


@pytest.mark.parametrize("name", ["sentence_bert_config", "sentence_roberta_config"])
def test_the_length_is_read(sentences, name):
    directory = sentences(**{name: {"max_seq_length": 256, "do_lower_case": True}})
    assert pooling_of(directory) == Pooling(
        reads="mean", normalize=True, max_length=256, lowercase=True)
    directory = sentences(**{name: {"max_seq_length": None, "do_lower_case": False}})
    assert pooling_of(directory).max_length is None


def test_the_packaged_checkpoint_says_how_its_vectors_are_made():
    assert pooling_of(model.directory("minilm")) == Pooling(
        reads="mean", normalize=True, max_length=256)


def test_other_directories_say_nothing(tiny_dir, tmp_path):
    assert pooling_of(tiny_dir) is None
    assert pooling_of(tmp_path / "none") is None
    assert sentence_files.encoder_in(tmp_path / "none") == tmp_path / "none"


def test_an_older_directory_opens_as_the_encoder_in_it(sentences, tiny_dir):
    directory = sentences(place="0_Transformer")
    inner = directory / "0_Transformer"
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    assert not (directory / "config.json").exists()
    assert checkpoint_names.place_of(directory) == inner
    assert model.directory(directory) == inner
    for found in (directory, inner):
        assert pooling_of(found) == Pooling(reads="mean", normalize=True, max_length=20)
    assert data.tokenizer_from(str(directory)).words == (
        data.tokenizer_from(tiny_dir).words)
    for one, other in zip(model.load(directory).get_weights(),
                          model.load(tiny_dir).get_weights(), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("pooling", [
    MEAN | {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False},
    MEAN | {"pooling_mode_max_tokens": True}, {"pooling_mode_lasttoken": True},
    {"pooling_mode_weightedmean_tokens": True}, {"pooling_mode": "max"},
    {"pooling_mode": 3}, {"pooling_mode_mean_tokens": "no", "pooling_mode_b": True},
    {"pooling_mode": ["mean", "max"]}, {"pooling_mode": [["mean"]]}, {}], ids=str)
def test_another_pooling_is_refused_by_name(sentences, pooling):
    directory = sentences(pooling=pooling)
    told = refusal(directory)
    assert f"Received: {directory / '1_Pooling' / 'config.json'}: " in told
    assert all(mode in told for mode in ("weightedmean", "lasttoken") if any(
        mode in name for name in pooling))


@pytest.mark.parametrize("kinds", [
    ("Transformer", "Pooling", "Dense"), ("Transformer", "Normalize"), ("Transformer",),
    ("BoW", "Pooling"), ("Transformer", "WeightedLayerPooling", "Pooling")], ids=str)
def test_another_module_is_refused_by_name(sentences, kinds):
    assert refusal(sentences(*kinds)).endswith(f"with {', '.join(kinds)}")


@pytest.mark.parametrize(("files", "said"), [
    ({"config_sentence_transformers": {"prompts": {"q": "query: "},
                                       "default_prompt_name": "q"}},
     "default_prompt_name='q'"),
    ({"sentence_bert_config": {"max_seq_length": 0}}, "max_seq_length=0"),
    ({"sentence_bert_config": {"max_seq_length": "9"}}, "max_seq_length='9'"),
    ({"sentence_bert_config": {"do_lower_case": "no"}}, "do_lower_case='no'"),
    ({"sentence_bert_config": []}, "sentence_bert_config.json: list"),
    ({"modules": {}}, "modules.json: dict"), ({"modules": [1]}, "modules.json: 1"),
    ({"modules": [{"path": "", "type": None}]}, "'type': None}"),
    ({"modules": [{"path": "../up", "type": "Transformer"}]}, "path='../up'"),
    ({"modules": [{"path": "/etc", "type": "Transformer"}]}, "path='/etc'"),
])
def test_what_else_is_not_honoured_or_damaged_is_named(sentences, files, said):
    assert refusal(sentences(**files)).endswith(said)


def test_a_prompt_that_is_none_is_passed_over(sentences):
    assert pooling_of(sentences(config_sentence_transformers={
        "prompts": {}, "default_prompt_name": None, "__version__": {}}))


def test_a_missing_pooling_is_told(sentences):
    directory = sentences()
    (directory / "1_Pooling" / "config.json").unlink()
    assert "No such file" in refusal(directory)


def test_texts_are_as_long_as_the_files_say_where_no_flag_does(sentences):
    directory = sentences(sentence_bert_config={"max_seq_length": 20})

    def tokens(task, **fields):
        return FineTuning(model=directory, task=task, data=Data(**fields)
                          ).with_own_length().data.tokens

    assert tokens("embedding") == 20
    assert tokens("embedding", max_length=8) == 8
    assert tokens("classification") == DEFAULT_LENGTH
    assert FineTuning(model="random:bert_tiny", task="embedding"
                      ).with_own_length().data.tokens == DEFAULT_LENGTH
