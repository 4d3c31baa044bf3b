"""Packaging of tfopt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# The one place of the version is tfopt/__init__.py, which is read, not imported.
VERSION = re.search(r'^__version__ = "(.+)"$',
                    (HERE / "tfopt" / "__init__.py").read_text(encoding="utf-8"),
                    re.MULTILINE).group(1)


def requirements(name):
    """The lines of a list of requirements, which light/setup.py reads, too."""
    return [line for line in (HERE / f"requirements-{name}.txt").read_text(
        encoding="utf-8").splitlines() if not line.startswith("#")]


# What answering needs alone, and what answering over HTTP needs beside.
SERVE, HTTP = requirements("serve"), requirements("http")
PLOT = ["matplotlib>=3.8,<4"]
SEARCH = ["optuna>=5,<6"]

setup(
    name="tfopt",
    version=VERSION,
    description="Makes BERT and its kin small and fast on the TensorFlow stack.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="tfopt maintainers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["BERT", "TensorFlow", "Keras", "LiteRT", "TFLite", "pruning",
              "quantization", "distillation", "compression", "sparsity"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["tfopt", "tfopt.*"]),
    package_data={"tfopt": ["py.typed", "recipes/*.json"],
                  "tfopt.data": ["support_intents/*", "random_vocabulary/*"],
                  "tfopt.serve": ["page.html", "dashboard.json", "alerts.yml"]},
    entry_points={"console_scripts": ["tfopt=tfopt.cli.main:main"]},
    python_requires=">=3.10",
    # Bounds are what was tested; docs/notes/pins_and_hazards.md says why.
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf-keras>=2.21,<2.22",
        "tensorflow-model-optimization>=0.8.1,<0.9",
        "ai-edge-quantizer>=0.10,<0.11",
        "safetensors>=0.4,<1",
        "huggingface-hub>=0.30,<3",  # which tokenizers brings
        "tensorboard>=2.20,<3",  # tf.summary writes through it
        *SERVE,
    ],
    extras_require={
        "plot": PLOT,
        "serve": HTTP,
        "search": SEARCH,
        "wandb": ["wandb>=0.31,<1"],
        "ray": [*HTTP, "ray[serve]>=2.60,<3"],
        "dev": [*PLOT, *HTTP, *SEARCH, "httpx2>=2,<3", "pytest>=8,<10",
                "pytest-xdist>=3,<4", "ruff>=0.8,<1", "mypy>=2.4,<3"],
        "docs": ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1.0,<2"],
    },
)
