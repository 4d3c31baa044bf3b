"""The encoder of tfopt: its config, its Keras model, its checkpoints.

model = tfopt.model.load("minilm", num_labels=3)   # checkpoint -> keras.Model
tfopt.model.save(model, "out/keras")               # keras.Model -> checkpoint
"""

from tfopt.model import quantized_layers
from tfopt.model.anatomy import config_of
from tfopt.model.checkpoint import (
    KERAS_FILE,
    directory,
    load,
    published_labels,
    save,
)
from tfopt.model.config import SHAPE_NAMES, EncoderConfig, named
from tfopt.model.encoder import build
from tfopt.model.heads import Head, head_of
from tfopt.model.inference import for_inference
from tfopt.model.layers import LowRankDense
from tfopt.model.quantized_layers import plain_copy, quantized_layers_of

__all__ = [
    "KERAS_FILE",
    "SHAPE_NAMES",
    "EncoderConfig",
    "Head",
    "LowRankDense",
    "build",
    "config_of",
    "directory",
    "for_inference",
    "head_of",
    "load",
    "named",
    "plain_copy",
    "published_labels",
    "quantized_layers",
    "quantized_layers_of",
    "save",
]
