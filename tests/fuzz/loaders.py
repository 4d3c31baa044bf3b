"""Everything that reads a file from outside, a row each.

A new reader adds a row: what makes good files, how each may be damaged, and the call
that reads them. The call raises nothing for the good files.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from fuzz import mutations
from fuzz.mutations import Mutation

GOLDENS = Path(__file__).parents[1] / "goldens"
_TABLE = "text\tlabel\n" + "a great film\tgood\nbad bad\tbad\nit is\tfine\n" * 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loader:
    """A reader of files, and good files for it.

    Attributes:
        name: of the row.
        make: writes good files into a directory.
        files: name of a file that is damaged -> how.
        load: reads them; what it returns is of no interest.
        short: damaged files in the tests of every day; 0 for the long test alone.
    """

    name: str
    make: Callable[[Path], object]
    files: Mapping[str, Mutation]
    load: Callable[[Path], object]
    short: int = 100


def _copied(source: str, *names: str) -> Callable[[Path], object]:
    def make(place: Path) -> None:
        for name in names:
            shutil.copy(GOLDENS / source / name, place)
    return make


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda place: (place / name).write_text(text)


def _small():
    """A model of one layer that is quick to build."""
    from tfopt import model

    return model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=64), model.Head(outputs=3))


def _checkpoint(place: Path) -> None:
    """The tiny checkpoint, of one layer."""
    from safetensors.numpy import load_file, save_file

    source = GOLDENS / "tiny_bert"
    fields = json.loads((source / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 1}))
    save_file({name: x for name, x in load_file(source / "model.safetensors").items()
               if "layer.1" not in name and "layer.2" not in name},
              place / "model.safetensors")


def _shards(place: Path) -> None:
    """The same in two files, with an index."""
    from safetensors.numpy import load_file, save_file

    _checkpoint(place)
    tensors = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    names = {name: f"model-{number % 2}.safetensors"
             for number, name in enumerate(sorted(tensors))}
    for file in sorted(set(names.values())):
        save_file({name: tensors[name] for name in names if names[name] == file},
                  place / file)
    (place / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": names}))


def _sentences(place: Path) -> None:
    (place / "modules.json").write_text(json.dumps([
        {"idx": number, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_N", "Normalize")])]))
    (place / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    (place / "config_sentence_transformers.json").write_text('{"prompts": {}}')
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}')


def _pooling(place: Path) -> None:
    from tfopt import checkpoint_names, sentence_files

    sentence_files.pooling_of(place)
    checkpoint_names.place_of(place)


def _google(place: Path) -> None:
    """The same as Google publishes it: a checkpoint of TensorFlow."""
    from safetensors.numpy import load_file

    from tfopt.backend import tf

    _checkpoint(place)
    tensors = {}
    for name, x in load_file(place / "model.safetensors").items():
        own = name.replace("layer.0.", "layer_0.").replace(".", "/")
        own = own.replace("classifier/", "output_").replace("output_weight",
                                                            "output_weights")
        if "LayerNorm" in own:
            own = own.replace("weight", "gamma").replace("bias", "beta")
        elif "_embeddings" in own:
            own = own.removesuffix("/weight")
        elif x.ndim == 2 and "output_weights" not in own:
            own, x = own.replace("/weight", "/kernel"), x.T
        tensors[own] = x
    tf.raw_ops.SaveV2(
        prefix=str(place / "bert_model.ckpt"), tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors), tensors=list(tensors.values()))
    (place / "model.safetensors").unlink()
    (place / "config.json").rename(place / "bert_config.json")


def _model(place: Path) -> None:
    from tfopt import model

    model.load(place)
    model.published_labels(place)


def _keras(place: Path) -> None:
    from tfopt import model

    model.save(_small(), place)


def _bundle(place: Path) -> None:
    from tfopt import data, tasks
    from tfopt.export import tflite
    from tfopt.serve import Bundle

    Bundle.write(
        place, task=tasks.named("classification")(labels=("bad", "fine", "good")),
        tokenizer=data.tokenizer_from(GOLDENS / "tiny_bert"), max_length=12,
        scheme="dynamic_wi8_afp32",
        model=tflite.convert(_small(), "dynamic_wi8_afp32"))


def _answers(place: Path) -> None:
    from tfopt.serve import Bundle

    Bundle.open(place, num_threads=1).predict(["a great film"])


def _tflite(place: Path) -> None:
    from tfopt.export import tflite

    (place / "model.tflite").write_bytes(tflite.convert(_small(), "dynamic_wi8_afp32"))


def _logits(place: Path) -> None:
    from tfopt.export.interpreter import Interpreter

    Interpreter(place / "model.tflite", num_threads=1).run([2, 30, 40, 3])


def _tokens(place: Path) -> None:
    from tfopt import data

    data.tokenizer_from(place).encode(["A great film, día", "x"], ["bad", ""],
                                      max_length=12)


def _byte_bpe(place: Path) -> None:
    letters = {chr(i): i + 3 for i in range(33, 127)} | {"Ġ": 200}
    (place / "vocab.json").write_text(json.dumps(
        {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 201, "<mask>": 202, **letters,
         "th": 203, "the": 204}))
    (place / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")


def _corpus(name: str) -> Callable[[Path], object]:
    def load(place: Path) -> None:
        from tfopt.data import corpus

        found = corpus.read(place / name)
        found.class_ids(found.label_list())
    return load


def _labels(place: Path) -> None:
    from tfopt.data import corpus

    corpus.read_labels(place / "labels.txt")


def _run(place: Path) -> None:
    from tfopt.pipeline import run_dir

    with run_dir.claim(place, {"run": "compress", "seed": 0, "data": {"train": "ab"}}):
        pass


def _sides(place: Path) -> None:
    from tfopt.pipeline import text_side

    text_side.read(place)


def _side(place: Path) -> None:
    from tfopt import data, tasks
    from tfopt.pipeline import text_side

    text_side.write(place, data.tokenizer_from(GOLDENS / "tiny_bert"),
                    tasks.named("classification")(labels=("bad", "good")), 12)


def _recipe(place: Path) -> None:
    from tfopt.pipeline import recipes

    (place / "recipe.json").write_text(
        recipes.load("structured_distilled_quantized").to_json())


def _read_recipe(place: Path) -> None:
    from tfopt.pipeline import recipes

    recipes.load(place / "recipe.json")


def _sizes():
    from tfopt import model

    return model.EncoderConfig.uniform(hidden_size=8, num_layers=3, num_heads=2,
                                       intermediate_size=16, vocab_size=103,
                                       max_positions=64)


def _latency(place: Path) -> None:
    from tfopt.measure import block_benchmark
    from tfopt.measure.latency_table import Curve, LatencyTable

    times = ((0.0, 0.0), (3.0, 30.0))
    curves = {"inner": Curve(sizes=(0, 16), ms=times),
              "last": Curve(sizes=(0, 16), ms=times)}
    (place / "table.json").write_text(LatencyTable(
        environment=block_benchmark.environment(_sizes(), 1, "float32", (2, 10)),
        tokens=(2, 10), first_ms=(1.0, 10.0), layer_ms=(0.5, 5.0), attention=curves,
        ffn=curves, interaction=((2, ((0.0, 0.0), (640.0, 0.1))),),
        spread=(0.9, 1.0, 1.2)).to_json())


def _predicted(place: Path) -> None:
    from tfopt.measure import table_file

    table = table_file.load(_sizes(), path=place / "table.json", num_threads=1,
                            scheme="float32", tokens=(2, 10), as_is=True)
    if not np.isfinite(table.predict(_sizes(), [4])):
        raise AssertionError("a time that is no number")


def _cluster(place: Path) -> None:
    from tfopt.train.distribute import cluster

    text = (place / "TF_CONFIG").read_bytes().decode("utf-8", "surrogateescape")
    cluster.read({"TF_CONFIG": text.replace("\0", "")})


def _portable(place: Path) -> None:
    from tfopt import data
    from tfopt.data import wordpiece_table

    (place / "wordpiece.bin").write_bytes(wordpiece_table.to_bytes(
        data.tokenizer_from(GOLDENS / "tiny_bert")))


def _ported(place: Path) -> None:
    """Reads a table whose checksum is right, whoever wrote it."""
    from tfopt.data import portable_wordpiece

    contents = (place / "wordpiece.bin").read_bytes()
    if len(contents) > 12 and len(contents) % 4 == 0:
        numbers = struct.unpack_from(f"<{len(contents) // 4 - 2}i", contents, 8)
        check = portable_wordpiece.checksum(numbers)
        contents = contents[:8] + struct.pack("<I", check) + contents[12:]
    table = portable_wordpiece.PortableWordPiece(contents)
    table.encode("A great film, día [SEP]", "bad \U0001d16d\U0001d165 中国")


LOADERS = {loader.name: loader for loader in (
    Loader(name="model.keras", make=_keras, load=_model, short=40,
           files={"model.keras": mutations.of_zip}),
    Loader(name="config.json", make=_checkpoint, load=_model, short=40,
           files={"config.json": mutations.of_json}),
    Loader(name="safetensors", make=_checkpoint, load=_model, short=40,
           files={"model.safetensors": mutations.of_safetensors}),
    Loader(name="shards", make=_shards, load=_model, short=20,
           files={"model.safetensors.index.json": mutations.of_json,
                  "model-1.safetensors": mutations.of_safetensors}),
    Loader(name="sentence model", make=_sentences, load=_pooling, short=60,
           files={"modules.json": mutations.of_json,
                  "sentence_bert_config.json": mutations.of_json,
                  "config_sentence_transformers.json": mutations.of_json,
                  "1_Pooling/config.json": mutations.of_json}),
    Loader(name="google", make=_google, load=_model, short=30, files={
        "bert_config.json": mutations.of_json,
        "bert_model.ckpt.index": mutations.of_bytes,
        "bert_model.ckpt.data-00000-of-00001": mutations.of_words}),
    Loader(name="tflite", make=_tflite, load=_logits, short=30,
           files={"model.tflite": mutations.of_words}),
    Loader(name="bundle.json", make=_bundle, load=_answers, short=40,
           files={"bundle.json": mutations.of_json}),
    Loader(name="bundle", make=_bundle, load=_answers, short=40, files={
        "model.tflite": mutations.of_words, "vocab.txt": mutations.of_lines,
        "tokenizer_config.json": mutations.of_json}),
    Loader(name="wordpiece", load=_tokens,
           make=_copied("tiny_bert", "vocab.txt", "tokenizer_config.json"),
           files={"vocab.txt": mutations.of_lines,
                  "tokenizer_config.json": mutations.of_json}),
    Loader(name="tokenizer.json", load=_tokens,
           make=_copied("tiny_bert_tokens", "tokenizer.json",
                        "special_tokens_map.json"),
           files={"tokenizer.json": mutations.of_json,
                  "special_tokens_map.json": mutations.of_json}),
    Loader(name="wordpiece table", make=_portable, load=_ported, short=40,
           files={"wordpiece.bin": mutations.of_words}),
    Loader(name="byte_bpe", make=_byte_bpe, load=_tokens,
           files={"vocab.json": mutations.of_json, "merges.txt": mutations.of_lines}),
    Loader(name="tsv", make=_text("data.tsv", _TABLE), load=_corpus("data.tsv"),
           files={"data.tsv": mutations.of_lines}),
    Loader(name="csv", make=_text("data.csv", _TABLE.replace("\t", ",")),
           load=_corpus("data.csv"), files={"data.csv": mutations.of_lines}),
    Loader(name="jsonl", load=_corpus("data.jsonl"), make=_text("data.jsonl", "".join(
        json.dumps({"text": f"text {i}", "label": i % 2}) + "\n" for i in range(4))),
        files={"data.jsonl": mutations.of_jsonl}),
    Loader(name="labels.txt", make=_text("labels.txt", "bad\nfine\ngood\n"),
           load=_labels, files={"labels.txt": mutations.of_lines}),
    Loader(name="run.json", load=_run, files={"run.json": mutations.of_json},
           make=_text("run.json", json.dumps(
               {"run": "compress", "seed": 0, "data": {"train": "ab"}}))),
    Loader(name="task.json", make=_side, load=_sides, files={
        "task.json": mutations.of_json, "text.json": mutations.of_json}),
    Loader(name="recipe", make=_recipe, load=_read_recipe,
           files={"recipe.json": mutations.of_json}),
    Loader(name="latency_table", make=_latency, load=_predicted, short=100,
           files={"table.json": mutations.of_json}),
    Loader(name="TF_CONFIG", load=_cluster, files={"TF_CONFIG": mutations.of_json},
           make=_text("TF_CONFIG", json.dumps(
               {"cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]},
                "task": {"type": "worker", "index": 1}}))),
)}
