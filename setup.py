"""Packaging of tfopt."""

from setuptools import find_packages, setup

setup(
    name="tfopt",
    version="0.1.0",
    description="Makes BERT small and fast on the TensorFlow stack.",
    license="Apache-2.0",
    packages=find_packages(include=["tfopt", "tfopt.*"]),
    package_data={"tfopt.data": ["support_intents/*"]},
    python_requires=">=3.10",
    # Bounds are what was tested; BUILD_NOTES.md says why.
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf-keras>=2.21,<2.22",
        "tensorflow-model-optimization>=0.8.1,<0.9",
        "ai-edge-litert>=2.3,<3",
        "ai-edge-quantizer>=0.10,<0.11",
        "flatbuffers>=25.12,<26",
        "tokenizers>=0.20,<1",
        "safetensors>=0.4,<1",
        "tensorboard>=2.20,<3",  # tf.summary writes through it
        "numpy>=1.26,<3",
        "absl-py>=1.4,<3",
    ],
    extras_require={
        "plot": ["matplotlib>=3.8,<4"],
        "dev": ["matplotlib>=3.8,<4", "pytest>=8,<10",
                "pytest-xdist>=3,<4", "ruff>=0.8,<1"],
    },
)
