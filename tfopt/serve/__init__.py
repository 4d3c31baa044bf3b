"""What answers texts where TensorFlow is not installed: a bundle, read and written.

    bundle = tfopt.serve.Bundle.open("runs/a")
    bundle.predict(["where is my parcel?"])   # [{"label": ..., "score": ...}]

Serving needs LiteRT, tokenizers, NumPy and absl-py.
"""

from tfopt.serve.bundle import Bundle

__all__ = ["Bundle"]
