"""How far apart two tokens are, in buckets: near ones by themselves, far ones together.

Each head adds a learned number to the score of two tokens, by the bucket of their
distance (Raffel et al. 2020, "T5", arXiv:1910.10683, section 2.1; Song et al. 2020,
"MPNet", arXiv:2004.09297).
"""

from __future__ import annotations

import numpy as np

from tfopt.backend import keras, tf

_FAR = 128  # tokens, from where on all distances share the last bucket


def bucket_of(distances: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of each distance.

    Half of the buckets are of tokens that come later. Of each half, the first half
    holds a distance each, and the others grow by a factor up to 128 tokens.

    Args:
        distances: <int>[...], the attended token's position less the attending one's.
        buckets: their number, even and at least 4.

    Returns:
        <int32>[...] in [0, buckets).
    """
    half = buckets // 2
    exact = half // 2
    far = np.abs(distances)
    # In float32, as the published models were trained: at a power of two the last digit
    # decides.
    grown = (np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
             / np.float32(np.log(_FAR / exact)) * np.float32(half - exact))
    wide = np.minimum(exact + grown.astype(np.int32), half - 1)
    return (np.where(far < exact, far, wide) + half * (distances > 0)).astype(np.int32)


@keras.utils.register_keras_serializable(package="tfopt")
class RelativeBuckets(keras.layers.Layer):
    """The bucket of every two tokens: attention mask <int32>[B, T] -> <int32>[T, T].

    Args:
        buckets: as of `bucket_of`.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, buckets: int, **kwargs):
        super().__init__(**kwargs)
        self.buckets = buckets

    def call(self, inputs):
        """Looks them up: row, the attending token; column, the attended one."""
        found = tf.constant(bucket_of(np.arange(-_FAR, _FAR + 1), self.buckets))
        positions = tf.range(tf.shape(inputs)[1])
        distances = positions[tf.newaxis, :] - positions[:, tf.newaxis]
        return tf.gather(found, tf.clip_by_value(distances, -_FAR, _FAR) + _FAR)

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "buckets": self.buckets}
