"""Every export of an encoder that has all the parts that one family or another has."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CONFIG, HEAD
from reading import run

from tfopt import model as models
from tfopt.compress.passes.quantization_aware import QuantizationAware
from tfopt.compress.qat import configs
from tfopt.export import tflite

# |logit of the file - logit of Keras| of the usual example, where logits of examples
# differ by 0.3. Of schemes that are trained for, Keras rounds as the file does; a
# number on the edge of two integers may fall to either side, in one example or another.
TOLERANCES = dict.fromkeys(tflite.SCHEMES, 1e-4) | {
    "float16": 0.02, "static_wi8_ai8": 0.05, "static_wi8_ai16": 0.05,
    "integer_wi8_ai8": 0.1}


@pytest.fixture(scope="module")
def encoder():
    """With narrow embeddings and relative positions; no weight zero or one."""
    bert = models.build(CONFIG.replace(embedding_size=16, relative_buckets=32), HEAD,
                        seed=3)
    random = np.random.default_rng(3)
    for weight in bert.weights:
        if len(weight.shape) == 1 or "relative_bias" in weight.name:
            middle = 1.0 if "gamma" in weight.name else 0.0
            weight.assign(random.normal(middle, 0.2, weight.shape))
    return bert


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_the_file_computes_what_keras_does(scheme, encoder, examples):
    own = encoder
    if scheme in QuantizationAware.schemes():
        own = QuantizationAware(scheme=scheme).wrap(encoder)
        for example in examples:
            own(example, training=True)
        own = configs.finalize(own)
    contents = tflite.convert(own, scheme, calibration=examples)
    expected = np.array([own(example)[0] for example in examples])
    found = np.array([run(contents, example) for example in examples])
    errors = np.abs(found - expected).max(axis=1)
    assert np.median(errors) < TOLERANCES[scheme] and errors.max() < 0.1
    assert np.ptp(expected, axis=0).max() > 3 * TOLERANCES[scheme]
