"""What the two installations need: of one list, and no more than is used."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import setuptools

import tfopt

ROOT = Path(tfopt.__file__).parents[1]


@pytest.fixture
def given(monkeypatch) -> dict:
    """What setup.py and light/setup.py hand to setuptools, by their name."""
    found = {}
    monkeypatch.setattr(setuptools, "setup",
                        lambda **fields: found.update({fields["name"]: fields}))
    for file in ("setup.py", "light/setup.py"):
        monkeypatch.chdir((ROOT / file).parent)
        runpy.run_path(str(ROOT / file))
    return found


def names(requirements) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}


def test_the_light_installation_is_the_whole_package_without_tensorflow(given):
    whole, light = given["tfopt"], given["tfopt-serve"]
    assert light["packages"] == whole["packages"]
    for field in ("version", "entry_points", "python_requires", "license"):
        assert light[field] == whole[field]
    needs = light["install_requires"]
    assert set(needs) < set(whole["install_requires"])
    assert names(needs) == {"ai-edge-litert", "flatbuffers", "tokenizers", "numpy",
                            "absl-py"}
    assert light["extras_require"]["serve"] == whole["extras_require"]["serve"]
    assert names(light["extras_require"]["serve"]) == {
        "starlette", "uvicorn", "httptools", "prometheus-client"}
    assert {"tensorflow", "tf-keras", "tensorflow-model-optimization"} <= names(
        whole["install_requires"])
    assert whole["version"] == tfopt.__version__


def test_nothing_but_the_package_is_installed(given):
    for fields in given.values():
        assert {name.split(".")[0] for name in fields["packages"]} == {"tfopt"}
    assert {"examples", "experiments", "tests"} <= {
        path.name for path in ROOT.iterdir()}  # which setup.py sees, and leaves out


def test_files_of_the_package_that_are_no_python_are_installed(given):
    for fields in given.values():
        found = {file for package, patterns in fields["package_data"].items()
                 for pattern in patterns
                 for file in (ROOT / package.replace(".", "/")).glob(pattern)}
        there = {*(ROOT / "tfopt" / "serve").iterdir()} - {
            *(ROOT / "tfopt" / "serve").glob("*.py"),
            ROOT / "tfopt" / "serve" / "__pycache__"}
        assert there <= found
