"""A Hugging Face encoder -> ONNX files: float32, and int8 by dynamic quantization.

Used by latency_vs_onnxruntime.py, in the Python that has the reference. Two graphs are
written: as PyTorch exports it, and with ONNX Runtime's own BERT fusions (attention,
embedding, skip-normalization), the recipe of its documentation for transformers. Each
is quantized in the ways that x86 with VNNI can profit from.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import onnx
import onnxruntime
import protocol
import torch
import transformers
from onnxruntime import quantization
from onnxruntime.transformers import optimizer

from tfopt.types import INPUT_NAMES  # found by PYTHONPATH; needs no package

_WITH_SEGMENTS = ("bert", "electra")


class Encoder(torch.nn.Module):
    """A model by its inputs' names: its logits, or a vector of each text.

    Args:
        model: of transformers.
        names: of the inputs, in the graph's order.
        vectors: whether the mean over visible tokens is given, in place of logits.
    """

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...], vectors: bool):
        super().__init__()
        self.model = model
        self.names = names
        self.vectors = vectors

    def forward(self, *inputs):
        """Computes <float>[B, C], or <float>[B, D]."""
        named = dict(zip(self.names, inputs, strict=True))
        found = self.model(**named)
        if not self.vectors:
            return found.logits
        seen = named["attention_mask"][:, :, None].to(torch.float32)
        return (found.last_hidden_state * seen).sum(1) / seen.sum(1)


def export(directory: str, file: Path, vectors: bool) -> transformers.PretrainedConfig:
    """Writes the float32 graph of batch 1 and any length; returns the config."""
    kind = (transformers.AutoModel if vectors
            else transformers.AutoModelForSequenceClassification)
    # ONNX Runtime's fusions know this attention; fused, both kinds come out alike.
    model = kind.from_pretrained(directory, attn_implementation="eager").eval()
    segments = model.config.model_type in _WITH_SEGMENTS
    names = INPUT_NAMES[:3 if segments else 2]
    ids = torch.ones([1, 16], dtype=torch.int64)
    examples = (ids, ids, torch.zeros_like(ids))[:len(names)]
    torch.onnx.export(
        Encoder(model, names, vectors), examples, file, input_names=list(names),
        output_names=["logits"], opset_version=17, dynamo=False,
        dynamic_axes={name: {1: "tokens"} for name in names})
    return model.config


def main() -> None:
    """Writes the files, and says their names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir", help="a Hugging Face directory")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--vectors", action="store_true",
                        help="mean vectors, not logits")
    arguments = parser.parse_args()
    channel = protocol.Channel()
    floats = {"plain": arguments.out_dir / "float32_plain.onnx",
              "fused": arguments.out_dir / "float32_fused.onnx"}
    config = export(arguments.model_dir, floats["plain"], arguments.vectors)
    optimizer.optimize_model(
        str(floats["plain"]), model_type="bert", num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size).save_model_to_file(str(floats["fused"]))
    int8 = {}
    for graph, per_channel, sign in itertools.product(
            floats, (False, True), ("QInt8", "QUInt8")):
        name = f"int8_{graph}_{sign}{'_per_channel' if per_channel else ''}"
        # reduce_range is left off: it gives up a bit of the weights for CPUs without
        # VNNI, and no speed.
        quantization.quantize_dynamic(
            floats[graph], arguments.out_dir / f"{name}.onnx", per_channel=per_channel,
            weight_type=quantization.QuantType[sign],
            # ONNX cannot infer types behind ONNX Runtime's own fused operations.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
        int8[name] = str(arguments.out_dir / f"{name}.onnx")
    channel.say(
        float32={f"float32_{graph}": str(file) for graph, file in floats.items()},
        int8=int8,
        versions={package.__name__: package.__version__
                  for package in (torch, transformers, onnx, onnxruntime)})


if __name__ == "__main__":
    main()
