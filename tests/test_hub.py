"""Names of the hub: fetched from a server of the tests' own, cached, refused in words.

Each fetching is a process of its own, to which the variables are given that count:
`huggingface_hub` reads them once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
from hub_server import commit_of, serving

from tfopt import checkpoint_names, data, hub, model, pipeline
from tfopt.pipeline import identity

NOT_FETCHED = {name: b"never" for name in (
    "pytorch_model.bin", "modeling_own.py", "tf_model.h5", "model.onnx", "README.md",
    "training_args.bin", "onnx/model.safetensors", "0/other.safetensors")}
FETCH = """
import json, os, sys
from tfopt import checkpoint_names, hub
for name in sys.argv[1:]:
    try:
        found = hub.fetch(name)
        print(json.dumps({"place": str(checkpoint_names.place_of(name)),
                          "revision": found.revision}))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
"""


def files_of(directory: Path, *names: str) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in names or os.listdir(
        directory)}


@pytest.fixture(scope="module")
def repositories(tiny_dir):
    """A whole model in two versions, one in shards, a sentence model, others."""
    tiny = files_of(tiny_dir)
    weights = tiny["model.safetensors"]
    without = {name: contents for name, contents in tiny.items()
               if name != "model.safetensors"}
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models."
                                                 "Transformer"},
               {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}
    return {
        "org/tiny": {"main": {**tiny, **NOT_FETCHED},
                     "v1": {**tiny, "vocab.txt": tiny["vocab.txt"] + b"more\n"}},
        "org/shards": {"main": {
            **without, "model.safetensors.index.json": json.dumps(index).encode(),
            "model-00001-of-00002.safetensors": weights[:9],
            "model-00002-of-00002.safetensors": weights[9:],
            "model-00003-of-00002.safetensors": b"named by no index"}},
        "org/sentences": {"main": {
            "modules.json": json.dumps(modules).encode(), **NOT_FETCHED,
            **{f"0_Transformer/{name}": contents for name, contents in tiny.items()},
            "0_Transformer/pytorch_model.bin": b"never",
            "0_Transformer/sentence_bert_config.json": b'{"max_seq_length": 20}',
            "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
            "1_Pooling/own.py": b"never"}},
        "org/outside": {"main": {**without, "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "../../model.safetensors"}}).encode()}},
        "org/closed": {"main": tiny},
        "org/adapter": {"main": {"adapter_config.json": b"{}",
                                 "adapter_model.safetensors": b"never"}},
        "org/pickled": {"main": {**without, "pytorch_model.bin": b"never"}},
    }


@pytest.fixture(scope="module")
def server(repositories):
    with serving(repositories) as found:
        found.gated.add("org/closed")
        yield found


@pytest.fixture
def fetch(server, tmp_path):
    """Fetches names in a process, with a cache of the test's own."""
    def run(*names, endpoint=server.endpoint, offline=False, cwd=tmp_path):
        server.asked.clear()
        done = subprocess.run(
            [sys.executable, "-c", FETCH, *names], capture_output=True, text=True,
            cwd=cwd, timeout=120, env={
                **{name: value for name, value in os.environ.items()
                   if not name.startswith(("HF_", "HUGGING"))},
                "PYTHONPATH": str(Path(hub.__file__).parents[1]),
                "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": str(int(offline)), "NO_PROXY": "127.0.0.1",
                "HF_HUB_DISABLE_TELEMETRY": "1"})
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def below(place) -> set[str]:
    return {path.relative_to(place).as_posix() for path in Path(place).rglob("*")
            if path.is_file()}


def test_a_name_is_fetched_without_what_can_run_code(fetch, server, tiny_dir):
    found, = fetch("org/tiny")
    main = server.repositories["org/tiny"]["main"]
    assert found["revision"] == commit_of(main)
    assert below(found["place"]) == set(os.listdir(tiny_dir))
    assert server.files_asked() == set(os.listdir(tiny_dir))
    for name, contents in files_of(tiny_dir).items():
        assert (Path(found["place"]) / name).read_bytes() == contents


def test_a_revision_may_be_a_tag_or_a_commit(fetch, server):
    tagged = server.repositories["org/tiny"]["v1"]
    commit = commit_of(tagged)
    by_tag, by_commit = fetch("org/tiny@v1", f"org/tiny@{commit}")
    assert by_tag == by_commit
    assert by_tag["revision"] == commit
    assert (Path(by_tag["place"]) / "vocab.txt").read_bytes() == tagged["vocab.txt"]


def test_shards_are_those_of_the_index(fetch):
    found, = fetch("org/shards")
    assert below(found["place"]) == {
        "config.json", "tokenizer_config.json", "vocab.txt",
        "model.safetensors.index.json", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors"}


def test_a_sentence_model_is_fetched_with_its_modules(fetch, server, tiny_dir):
    found, = fetch("org/sentences")
    place = Path(found["place"])
    assert place.name == "0_Transformer"
    assert below(place.parent) == {
        "modules.json", "1_Pooling/config.json",
        "0_Transformer/sentence_bert_config.json",
        *(f"0_Transformer/{name}" for name in os.listdir(tiny_dir))}


def test_the_cache_serves_without_a_hub(fetch, server):
    first, = fetch("org/tiny")
    again, = fetch("org/tiny")
    assert again == first and not server.files_asked()
    for options, said in (
            ({"offline": True}, "HF_HUB_OFFLINE keeps the hub from being asked"),
            ({"endpoint": "http://127.0.0.1:9"}, "the hub cannot be reached (")):
        cached, missing = fetch("org/tiny", "org/shards", **options)
        assert cached == first
        assert ("Received: 'org/shards', which is no directory here and not in the "
                f"cache, and {said}") in missing["error"]
        assert "\n" not in missing["error"]
    assert not server.asked


def test_a_branch_that_moves_is_fetched_anew(fetch, server):
    before, = fetch("org/tiny")
    old = server.repositories["org/tiny"]
    server.repositories["org/tiny"] = {"main": {**old["main"], "vocab.txt": b"new\n"}}
    try:
        after, = fetch("org/tiny")
    finally:
        server.repositories["org/tiny"] = old
    assert after["revision"] != before["revision"]
    assert (Path(after["place"]) / "vocab.txt").read_bytes() == b"new\n"
    assert server.files_asked() == {"vocab.txt"}


@pytest.mark.parametrize(("name", "said"), [
    ("org/nobody", "which the hub does not know"),
    ("org/tiny@v9", "of which the hub knows no revision 'v9'"),
    (f"org/tiny@{'0' * 40}", f"of which the hub knows no revision '{'0' * 40}'"),
    ("org/closed", "open to those alone who accept its terms"),
    ("org/a--b", "can be no repository's"),
    ("org/outside", "'a' in '../../model.safetensors'"),
])
def test_what_cannot_be_fetched_is_told_in_a_sentence(name, said, fetch, server):
    found, = fetch(name)
    assert said in found["error"] and "Received: " in found["error"]
    assert "\n" not in found["error"]
    assert name == "org/outside" or (
        f"hub, {server.endpoint}. Received: {name!r}, " in found["error"])


def test_a_directory_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_name("org/name") and hub.is_name("org/name@v1.0/a")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not hub.is_name("org/name")
    assert checkpoint_names.place_of("org/name") == Path("org/name")
    assert hub.revision_of("org/name") is None


@pytest.mark.parametrize("name", [
    "minilm", "random:bert_tiny", "/org/name", "org/name/", "./org/name", "a/b/c",
    "org/name@", "org/na me", "../name", "~/name", "org/.git",
    Path("org/none"), ""], ids=str)
def test_what_is_no_name_of_the_hub(name):
    assert not hub.is_name(name)
    assert hub.revision_of(name) is None


@pytest.fixture
def cached(fetch, tmp_path, monkeypatch):
    """This process has the cache that another has filled, and no network.

    In it are org/tiny, org/adapter and org/pickled.
    """
    from huggingface_hub import constants

    found, *_ = fetch("org/tiny", "org/adapter", "org/pickled")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.fetch.cache_clear()
    yield found
    hub.fetch.cache_clear()


def test_a_run_by_a_name_knows_its_commit(cached, tmp_path, tiny_dir):
    """Its identity is what run.json and bundle.json hold."""
    (tmp_path / "train.tsv").write_text("text\tlabel\na film\tgood\nbad\tbad\n")
    job = pipeline.Job(model="org/tiny", train=tmp_path / "train.tsv",
                       teacher=pipeline.Teacher(teacher="org/tiny@main"),
                       baseline="org/tiny", out_dir=tmp_path / "out")
    of_name, of_files = job.identity(), dataclasses.replace(
        job, model=tiny_dir, baseline=None).identity()
    assert of_name["teacher"] == {
        "name": "org/tiny@main", "sha256": of_files["model"]["sha256"],
        "revision": cached["revision"]}
    assert of_name["baseline"] == of_name["teacher"] | {"name": "org/tiny"}
    by_name = dataclasses.replace(job, baseline=None).identity()
    assert by_name["model"] == of_name["baseline"]
    # Contents count: another name or commit of the same files is the same run.
    assert identity.digest(by_name) == identity.digest(of_files)
    assert identity.difference(by_name, of_files) == ""


def test_what_was_made_of_a_name_knows_the_commit_too(cached, tmp_path, tiny_dir):
    """A baseline of `finetune`, that in a directory of `compress`, a rung of either."""
    job = pipeline.Job(model="org/tiny@main", out_dir=tmp_path / "out")
    said = f"org/tiny@{cached['revision']}"
    tuned = shutil.copytree(tiny_dir, tmp_path / "tuned")
    inner = shutil.copytree(tiny_dir, tmp_path / "run" / "baseline")
    for place in (tuned, inner.parent):
        (place / "run.json").write_text(json.dumps(job.identity()))
    for place in (tuned, inner):
        of_baseline = dataclasses.replace(job, baseline=place).identity()
        assert of_baseline["baseline"]["made_of"] == said
        assert "model" not in of_baseline  # of which nothing is taken
    (inner.parent / "run.json").write_text(json.dumps(of_baseline))
    assert dataclasses.replace(job, baseline=inner).identity()["baseline"][
        "made_of"] == said
    (tuned / "run.json").write_text("{")
    assert "made_of" not in dataclasses.replace(
        job, baseline=tuned).identity()["baseline"]


def test_weights_and_tokenizer_are_those_of_the_directory(cached, tiny_dir):
    assert data.tokenizer_from("org/tiny").words == data.tokenizer_from(tiny_dir).words
    assert model.published_labels("org/tiny") == model.published_labels(tiny_dir)
    own, there = model.load("org/tiny"), model.load(tiny_dir)
    for one, other in zip(own.get_weights(), there.get_weights(), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(("name", "said"), [
    ("org/adapter", "`merge_and_unload` .*adapter_config.json$"),
    ("org/pickled", "of the hub no other weights are fetched. Received: .*config.json"),
])
def test_a_repository_without_weights_that_are_read_is_told(cached, name, said):
    with pytest.raises(ValueError, match=said):
        model.load(name)


def test_no_other_test_asks_the_network():
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE keeps.*asked$"):
        hub.fetch("org/none")


def test_the_servers_commits_tell_contents_apart():
    one, other = (hub_server.commit_of({"a": contents}) for contents in (b"1", b"2"))
    assert len(one) == 40 and one != other
