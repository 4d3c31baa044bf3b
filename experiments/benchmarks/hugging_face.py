"""A model of ours -> a Hugging Face directory, for the programs compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tfopt.backend import keras
from tfopt.files import to_json
from tfopt.model import config_of, head_of
from tfopt.model.families.registry import all_families

_CLASSES = {"bert": "Bert", "distilbert": "DistilBert", "electra": "Electra",
            "mpnet": "MPNet", "roberta": "Roberta"}  # of transformers, by family


def write(model: keras.Model, directory: Path) -> Path:
    """Writes an encoder of tfopt's as `AutoModelForSequenceClassification` reads it.

    Args:
        model: made by `tfopt.model`; all its layers of one size.
        directory: made if missing; gets config.json and model.safetensors.

    Returns:
        The directory.

    Raises:
        ValueError: layers differ in size, or in a tensor that they are to share, which
            this format cannot say.
    """
    config, head = config_of(model), head_of(model)
    if (len(set(config.num_heads)) > 1 or len(set(config.intermediate_sizes)) > 1
            or config.head_size * config.num_heads[0] != config.hidden_size):
        raise ValueError("The reference needs a BERT whose layers are of one size, "
                         "with heads as wide as the model. Received: "
                         f"num_heads={config.num_heads}, intermediate_sizes="
                         f"{config.intermediate_sizes}, head_size={config.head_size}")
    family = all_families()[config.family]
    tensors = {}
    for layer, source in family.published(config).items():
        first, *others = model.get_layer(layer).get_weights()
        first = np.pad(first, [(source.skipped, 0), *[(0, 0)] * (first.ndim - 1)])
        if source.added:  # it is in the first already
            tensors[source.added] = np.zeros([1, first.shape[1]], np.float32)
        for name, weight in zip(source.tensors, [
                first.T if source.transposed else first, *others], strict=True):
            if not np.array_equal(tensors.setdefault(
                    name, np.ascontiguousarray(weight)), weight):
                raise ValueError("The reference has one tensor where layers here have "
                                 f"learned one each. Received: {layer}, {name}")
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    fields = {
        # Of a family without segments whose files have one row of them all the same.
        **({} if config.type_vocab_size else {"type_vocab_size": 1}),
        **family.to_fields(config),
        "architectures": [f"{_CLASSES[config.family]}ForSequenceClassification"],
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation,
                                                            config.activation),
        "classifier_dropout": head.dropout,
        "id2label": {str(i): f"LABEL_{i}" for i in range(head.outputs)},
        "label2id": {f"LABEL_{i}": i for i in range(head.outputs)},
    }
    (directory / "config.json").write_text(to_json(fields, indent=1), "utf-8")
    return directory
