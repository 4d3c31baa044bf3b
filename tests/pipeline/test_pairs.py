"""Pairs of texts need a second segment, or a model without segments."""

from __future__ import annotations

import pytest

from tfopt import model
from tfopt.pipeline import checks


@pytest.mark.parametrize("segments, column, fits", [
    (2, "second", True), (0, "second", True), (1, None, True), (1, "second", False)])
def test_a_model_of_one_segment_reads_no_pairs(segments, column, fits):
    bert = model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=20,
        max_positions=16, type_vocab_size=segments))
    if fits:
        checks.check_pairs(bert, column)
        return
    with pytest.raises(ValueError, match="Received: --text_pair_column=second"):
        checks.check_pairs(bert, column)
