"""The BERT of tfopt: its config, its Keras model, its checkpoints.

    model = tfopt.model.load("minilm", num_labels=3)   # checkpoint -> keras.Model
    tfopt.model.save(model, "out/keras")               # keras.Model -> checkpoint
"""

from tfopt.model.bert import build, for_inference
from tfopt.model.checkpoint import directory, load, published_labels, save
from tfopt.model.config import SHAPE_NAMES, BertConfig, named

__all__ = [
    "SHAPE_NAMES",
    "BertConfig",
    "build",
    "directory",
    "for_inference",
    "load",
    "named",
    "published_labels",
    "save",
]
