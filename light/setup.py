"""Packaging of tfopt-serve: the package tfopt, with what serving needs alone.

    pip install ./light            # from a checkout: no TensorFlow
    pip install './light[serve]'   # with what `tfopt serve` needs

An extra can add requirements, and take none away; so this is a distribution of its own,
of the same files and version. One of the two is to be installed, as with
opencv-python and opencv-python-headless.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parents[1]



def requirements(name):
    """The lines of a list of requirements, which setup.py reads, too."""
    return [line for line in (ROOT / f"requirements-{name}.txt").read_text(
        encoding="utf-8").splitlines() if not line.startswith("#")]


setup(
    name="tfopt-serve",
    version=re.search(r'^__version__ = "(.+)"$',
                      (ROOT / "tfopt" / "__init__.py").read_text(encoding="utf-8"),
                      re.MULTILINE).group(1),
    description="Runs what tfopt has compressed, without TensorFlow.",
    author="tfopt maintainers",
    license="Apache-2.0",
    packages=find_packages(where="..", include=["tfopt", "tfopt.*"]),
    package_dir={"tfopt": "../tfopt"},
    package_data={"tfopt": ["py.typed", "recipes/*.json"],
                  "tfopt.serve": ["page.html", "dashboard.json", "alerts.yml"]},
    entry_points={"console_scripts": ["tfopt=tfopt.cli.main:main"]},
    python_requires=">=3.10",
    install_requires=requirements("serve"),
    extras_require={"serve": requirements("http")},
)
