"""What is rounded in a layer while training, by the scheme that it is exported in.

The points follow from the scheme's record, as the rules of its file do: what a file
holds in integers is rounded here.
"""

from __future__ import annotations

from tfopt.backend import keras
from tfopt.compress.qat.configs import PointsConfig
from tfopt.export.schemes import Scheme
from tfopt.model import anatomy
from tfopt.model.attention import SelfAttention
from tfopt.model.layers import LayerNorm, PositionEmbedding

_TABLES = (keras.layers.Embedding, PositionEmbedding)
_OF_PRODUCT = {  # mode -> the points of a Dense
    "weight_only": {},
    "dynamic": {"input": "per_token"},
    "static": {"input": "range", "output": "range"},
}


def points_of(scheme: Scheme, layer: keras.layers.Layer) -> PointsConfig | None:
    """What is rounded in a layer.

    Args:
        scheme: one that can be trained for.
        layer: of a type that `model.quantized_layers` knows, in a model.

    Returns:
        The points and the weights' numbers; None where the layer stays in float.
    """
    if scheme.integer:
        return _in_integers(layer)
    if isinstance(layer, keras.layers.Dense):
        in_ffn = anatomy.is_in_ffn(layer.name)
        numbers = (scheme.ffn_product if in_ffn else scheme.product).fitting(
            layer.get_input_shape_at(0)[-1])
        return PointsConfig(_OF_PRODUCT[numbers.mode], numbers.weight_bits,
                            numbers.block)
    if isinstance(layer, _TABLES):
        numbers = scheme.table.fitting(layer.get_output_shape_at(0)[-1])
        return PointsConfig({"rows": "rows"}, numbers.weight_bits, numbers.block)
    return None


def _in_integers(layer: keras.layers.Layer) -> PointsConfig | None:
    """Where all operations are in integers: every output has a range."""
    width = layer.get_output_shape_at(0)[-1]
    if isinstance(layer, keras.layers.Dense):
        curved = layer.activation is not keras.activations.linear
        output = ("channel_ranges" if anatomy.has_outlier_channels(layer.name)
                  else "range")
        return PointsConfig({"output": output} | ({"activation": "range"} if curved
                                                  else {}), 8, None,
                            width if output == "channel_ranges" else None)
    if isinstance(layer, keras.layers.Add):
        return PointsConfig({"output": "channel_ranges"}, width=width)
    if isinstance(layer, LayerNorm):
        return PointsConfig({"output": "range"})
    if isinstance(layer, SelfAttention):
        points = {"scores": "range", "probabilities": "unit", "output": "range"}
        if layer.relative_buckets:
            return PointsConfig({**points, "rows": "table", "biased": "range"}, 8)
        return PointsConfig(points)
    return PointsConfig({"rows": "table"}, 8) if isinstance(layer, _TABLES) else None
