"""Set-up shared by the tests of compression."""

from __future__ import annotations

import pytest

from tfopt import data


@pytest.fixture
def texts(tiny_examples):
    """Two thirds of the examples to fit to, and the others; without labels."""
    encoded, _ = tiny_examples
    return [data.Batches(data.Encoded(ids=encoded.ids[part],
                                      first_lengths=encoded.first_lengths[part]),
                         batch_size=16, pad_to=16)
            for part in (slice(0, 32), slice(32, 48))]
