"""The benchmark of sparse products: what it times, reports, draws and goes on with."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_runs import BENCHMARKS, run


@pytest.fixture
def module(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("sparse_matmul")


def test_forms_are_timed_against_dense(tmp_path):
    path = tmp_path / "report.json"
    flags = ["--smoke", "--shapes=64x128,128x64", "--blocks=1,16", "--sparsities=0,0.9",
             "--rows=1,8", "--backends=coo,csr,csr_constant,block,block_unrolled",
             f"--report={path}", f"--picture={tmp_path / 'p.png'}"]
    done = run("sparse_matmul", *flags)
    report = json.loads(path.read_text())
    figures = report["figures"]
    assert list(figures["shapes"]) == ["64x128", "128x64"]
    of_blocks = {"block", "block_unrolled"}
    for shape in figures["shapes"].values():
        assert set(shape) == {"unstructured", "16x16"}
        for pattern, sparsities in shape.items():
            assert set(sparsities) == {"0", "0.9"}
            for sparsity, counts in sparsities.items():
                assert set(counts) == {"1", "8"}
                for cell in counts.values():
                    forms = {"auto"}
                    if sparsity == "0.9":
                        forms |= {"coo", "csr", "csr_constant"}
                        forms |= of_blocks if pattern == "16x16" else set()
                    else:  # without zeros there is nothing to choose
                        assert cell["auto_backend"] == "dense"
                    assert {*cell["speedup"], *cell["given_up"]} == forms
                    assert cell["dense_ms"] > 0
                    assert all(value > 0 for value in cell["speedup"].values())
    auto = figures["auto"]
    assert auto["cells"] == 16 and auto["cells_not_dense"] <= 8
    assert auto["least_speedup"] <= auto["median_speedup"]
    left = [cell["speedup"]["auto"] for shape in figures["shapes"].values()
            for sparsities in shape.values() for counts in sparsities.values()
            for cell in counts.values() if cell["auto_backend"] != "dense"]
    assert auto["least_speedup_not_dense"] == min(left, default=None)
    assert auto["cells_not_dense"] == len(left)
    assert report["environment"]["cpu"] and "auto.cells: 16" in done.stdout
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")

    del figures["shapes"]["128x64"]  # as if it was killed after the first shape
    path.write_text(json.dumps(report))
    again = run("sparse_matmul", *flags)
    after = json.loads(path.read_text())["figures"]
    assert "128x64 16x16" in again.stderr and "64x128 16x16" not in again.stderr
    assert set(after["shapes"]) == {"64x128", "128x64"}
    assert after["shapes"]["64x128"] == figures["shapes"]["64x128"]


def test_kernels_have_so_many_blocks_of_zeros(module):
    kernel = module.kernel_of(64, 128, 16, 0.75)
    blocks = np.abs(kernel).reshape(4, 16, 8, 16).max(axis=(1, 3))
    assert (blocks == 0).sum() == 24 and np.count_nonzero(kernel) == 8 * 256
    assert np.count_nonzero(module.kernel_of(8, 10, 1, 0.9)) == 8
    assert np.count_nonzero(module.kernel_of(16, 16, 16, 0.9)) == 256  # one is left


@pytest.mark.parametrize(("values", "message"), [
    ({"backends": ["ell"]}, r"Received: \['ell'\]"),
    ({"blocks": ["48"]}, "divide all shapes. Received: 48, 64x64")])
def test_what_cannot_be_timed_is_refused(module, monkeypatch, tmp_path, values,
                                         message):
    monkeypatch.setattr(module, "FLAGS", SimpleNamespace(**{
        "backends": ["csr"], "blocks": ["1"], "shapes": ["64x64"], "rows": ["1"],
        "sparsities": ["0"], "report": str(tmp_path / "r.json")} | values))
    with pytest.raises(ValueError, match=message):
        module.main()
