"""The verifier of `.tflite` files: every export passes; what LiteRT would believe, not.

And the trial in a process of its own, for what only a kernel knows.
"""

from __future__ import annotations

import inspect
import re
import struct
import time

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfopt import tasks
from tfopt.data import tokenizer_from
from tfopt.export import flatbuffer, tflite, tflite_tables, trial, verify
from tfopt.export.interpreter import Interpreter
from tfopt.export.litert import state_of
from tfopt.export.tflite_walk import Damaged, Walk
from tfopt.serve import Bundle

# As the generated reader calls them -> a letter of `struct`.
LETTERS = {"Int8": "b", "Uint8": "B", "Bool": "?", "Uint16": "H", "Int32": "i",
           "Uint32": "I", "Int64": "q", "Uint64": "Q", "Float32": "f"}


def published(table: str) -> dict[int, tuple[str, str]]:
    """Slot -> name and type of a table's fields, out of the generated reader's code."""
    found: dict[int, list[tuple[str, str]]] = {}
    for name, method in inspect.getmembers(getattr(schema, table), inspect.isfunction):
        code = inspect.getsource(method)
        if offset := re.search(r"_tab\.Offset\((\d+)\)", code):
            found.setdefault(int(offset[1]) // 2 - 2, []).append((name, code))
    fields = {}
    for slot, methods in found.items():
        name = min((name for name, _ in methods), key=len)
        code = "".join(code for _, code in methods)
        number = re.search(r"\.(?:Get|GetVectorAsNumpy)\(flatbuffers\.number_types\."
                           r"(\w+)Flags", code)
        inner = re.search(r"obj = (\w+)\(\)", code)
        kind = ("string" if "_tab.String" in code else "union" if "_tab.Union" in code
                else inner[1] if inner else LETTERS[number[1]])
        fields[slot] = (name.lower(), f"[{kind}]" if "VectorLen" in code else kind)
    return fields


@pytest.mark.parametrize("table", tflite_tables.TABLES)
def test_tables_are_those_of_the_published_schema(table):
    ours = {slot: (name.replace("_", ""), kind) for slot, (name, kind) in
            enumerate(tflite_tables.TABLES[table]) if name != "-"}
    assert ours == published(table)


def test_operations_and_unions_are_those_of_the_published_schema():
    codes = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    options = vars(schema.BuiltinOptions)
    for code, (name, table, *_) in tflite_tables.OPERATIONS.items():
        assert codes[code] == name
        assert not table or table in options
        assert table in tflite_tables.TABLES or not table or not published(table)
    for field, kind in (("builtin_options", schema.BuiltinOptions),
                        ("details", schema.QuantizationDetails),
                        ("array_indices", schema.SparseIndexVector)):
        for number, name in enumerate(tflite_tables.UNIONS[field][1:], start=1):
            assert getattr(kind, name) == number


@pytest.mark.parametrize("scheme, length", [
    *((scheme, None) for scheme in tflite.SCHEMES), ("float32", 12)])
def test_every_export_passes(scheme, length, quantized, small_bert):
    verify.check(quantized(scheme, length) if "_wi" in scheme else
                 tflite.convert(small_bert, scheme, length=length))


@pytest.fixture(scope="module")
def good(quantized) -> bytes:
    return quantized("dynamic_wi8_afp32")


def operation(model, kind: str):
    return next(iter(flatbuffer.operations(model, kind)))


def tensor(model, kind: str, place: int):
    """The tensor that the first operation of a kind reads at a place."""
    return model.subgraphs[0].tensors[operation(model, kind).inputs[place]]


def put(where, **fields):
    for name, value in fields.items():
        assert hasattr(where, name)
        setattr(where, name, value)


def put_metadata(model):
    made = schema.MetadataT()
    put(made, name=b"model_control_dependencies", buffer=1)
    model.metadata.append(made)


def put_external(model):
    made = schema.ExternalBufferGroupT()
    made.name = b"/etc/hostname"
    model.externalBufferGroups = [made]


def put_options(model, other):
    options = schema.ReshapeOptionsT()
    put(operation(model, "SOFTMAX"), builtinOptions=options,
        builtinOptionsType=other)


def write_into_constant(model):
    put(operation(model, "FULLY_CONNECTED"),
        outputs=[operation(model, "FULLY_CONNECTED").inputs[1]])


def read_what_comes_later(model):
    operation(model, "SOFTMAX").inputs = [model.subgraphs[0].outputs[0]]


def compute_twice(model):
    operators = model.subgraphs[0].operators
    operators[1].outputs = operators[0].outputs


def run_itself(model):
    code = schema.OperatorCodeT()
    put(code, builtinCode=schema.BuiltinOperator.WHILE, version=1,
        deprecatedBuiltinCode=schema.BuiltinOperator.WHILE)
    model.operatorCodes.append(code)
    options = schema.WhileOptionsT()
    put(options, condSubgraphIndex=0, bodySubgraphIndex=0)
    put(model.subgraphs[0].operators[0], opcodeIndex=len(model.operatorCodes) - 1,
        builtinOptionsType=schema.BuiltinOptions.WhileOptions, builtinOptions=options)


# A change of a parsed file -> what the refusal says.
HOSTILE = {
    "an older version": (lambda m: put(m, version=1), "version must be 3"),
    "no graph": (lambda m: put(m, subgraphs=[]), "must have a graph"),
    "weights elsewhere": (put_external, "not in other files"),
    "an order of its own": (put_metadata, "metadata"),
    "a custom operation": (lambda m: put(m.operatorCodes[0], builtinCode=32,
                                         deprecatedBuiltinCode=32,
                                         customCode=b"Flex"), "code 32 Flex"),
    "an unknown operation": (lambda m: put(m.operatorCodes[0], builtinCode=999),
                             "code 999"),
    "a code out of range": (lambda m: put(operation(m, "SOFTMAX"), opcodeIndex=99),
                            "its code must be one of"),
    "an input out of range": (lambda m: put(operation(m, "SOFTMAX"), inputs=[9999]),
                              "an input must be one of"),
    "an input below zero": (lambda m: put(operation(m, "SOFTMAX"), inputs=[-2]),
                            "an input must be one of"),
    "an input left out": (lambda m: put(operation(m, "SOFTMAX"), inputs=[-1]),
                          "an input must be one of"),
    "too few inputs": (lambda m: put(operation(m, "FULLY_CONNECTED"), inputs=[0]),
                       "its number of inputs"),
    "too many outputs": (lambda m: put(operation(m, "SOFTMAX"), outputs=[0, 1]),
                         "its number of outputs"),
    "an output out of range": (lambda m: put(operation(m, "SOFTMAX"), outputs=[-1]),
                               "an output must be one of"),
    "a constant overwritten": (write_into_constant, "no constant or input"),
    "what comes later": (read_what_comes_later, "computed before"),
    "the same twice": (compute_twice, "computed once"),
    "a graph that runs itself": (run_itself, "its graph"),
    "options of another kind": (lambda m: put_options(
        m, schema.BuiltinOptions.ReshapeOptions), "those of its kind"),
    "custom options": (lambda m: put(operation(m, "SOFTMAX"), customOptions=[1]),
                       "its options"),
    "a graph's input out of range": (lambda m: put(m.subgraphs[0], inputs=[9999]),
                                     "input or output"),
    "an output that none computes": (lambda m: put(m.subgraphs[0], operators=[]),
                                     "must be computed"),
    "a signature of another graph": (lambda m: put(m.signatureDefs[0],
                                                   subgraphIndex=7), "graph"),
    "a signature of another tensor": (lambda m: put(
        m.signatureDefs[0].inputs[0], tensorIndex=5), "those of its graph"),
    "a buffer out of range": (lambda m: put(tensor(m, "FULLY_CONNECTED", 1),
                                            buffer=9999), "its buffer"),
    "a type of words": (lambda m: put(tensor(m, "FULLY_CONNECTED", 1),
                                      type=schema.TensorType.STRING), "of numbers"),
    "a larger shape": (lambda m: put(tensor(m, "FULLY_CONNECTED", 1),
                                     shape=[1000, 32], quantization=None),
                       "its bytes must be 32000"),
    "a shape below zero": (lambda m: put(tensor(m, "FULLY_CONNECTED", 1),
                                         shape=[-1, 32]), "its shape"),
    "a shape of millions": (lambda m: put(tensor(m, "SOFTMAX", 0), shape=[
        1, 2, 50000, 50000], shapeSignature=None), "its bytes"),
    "many dimensions": (lambda m: put(tensor(m, "SOFTMAX", 0), shape=[1] * 9),
                        "its dimensions"),
    "another signature": (lambda m: put(tensor(m, "SOFTMAX", 0),
                                        shapeSignature=[5]), "its shape's signature"),
    "a short buffer": (lambda m: put(
        m.buffers[tensor(m, "FULLY_CONNECTED", 1).buffer], data=[1, 2]), "its bytes"),
    "too few scales": (lambda m: put(tensor(m, "FULLY_CONNECTED", 1).quantization,
                                     scale=[1.0, 2.0]), "number of scales"),
    "a scale that is none": (lambda m: put(
        tensor(m, "FULLY_CONNECTED", 1).quantization, scale=[np.nan]), "scales"),
    "too many zero points": (lambda m: put(
        tensor(m, "FULLY_CONNECTED", 1).quantization, zeroPoint=[0] * 5),
        "number of zero points"),
    "another dimension": (lambda m: put(
        tensor(m, "FULLY_CONNECTED", 1).quantization, quantizedDimension=4),
        "quantized dimension"),
}


@pytest.mark.parametrize("change, said", HOSTILE.values(), ids=HOSTILE)
def test_what_litert_would_believe_is_refused(change, said, good):
    parsed = flatbuffer.parse(good)
    change(parsed)
    with pytest.raises(ValueError, match=f"Received: a file: .*{said}"):
        verify.check(flatbuffer.serialize(parsed))


def test_serializing_alone_changes_nothing(good):
    verify.check(flatbuffer.serialize(flatbuffer.parse(good)))


@pytest.mark.parametrize("place, value, said", [
    (0, 0, "offset"), (0, 0xffffffff, "offset"), (0, 3, "multiple"), (4, 0, "bytes 4"),
])
def test_an_offset_out_of_the_file_is_refused(place, value, said, good):
    changed = bytearray(good)
    struct.pack_into("<I", changed, place, value)
    with pytest.raises(ValueError, match=said):
        verify.check(bytes(changed))


def test_no_cut_file_passes(good):
    for size in range(0, len(good), 97):
        with pytest.raises(ValueError, match="Received: a file: "):
            verify.check(good[:size])


def test_a_table_that_is_there_a_million_times_is_refused():
    """A small file can name one table again and again, and each of it likewise."""
    graphs = 400_000
    places = struct.pack("<I", graphs) + struct.pack("<I", 4) * graphs
    # Vtable of 5 fields, the third at 4; the model's table; its vector of graphs.
    head = (struct.pack("<I", 24) + b"TFL3" + struct.pack("<5H", 10, 8, 0, 0, 4)
            + b"\0" * 6 + struct.pack("<iI", 16, 4))
    with pytest.raises(Damaged, match="too many tables"):
        Walk(head + places).model()


def level(size: int, segments=None, indices=None) -> dict:
    if segments is None:
        return {"format": 0, "dense_size": size, "array_segments": None,
                "array_indices": None}
    return {"format": 1, "dense_size": 0, "array_segments": {"values": segments},
            "array_indices": {"values": indices}}


def sparse(**changes) -> dict:
    """4 x 6 numbers in blocks of 1 x 2, of which 3 are there."""
    return {"traversal_order": [0, 1, 2], "block_map": [1], "dim_metadata": [
        level(4), level(0, [0, 1, 1, 2, 3], [2, 0, 1]), level(2)]} | changes


@pytest.mark.parametrize("changes, stored, said", [
    ({}, 6, None), ({}, 5, "its 6 numbers"),
    ({"traversal_order": [0, 1, 1]}, 6, "order"), ({"block_map": [7]}, 6, "blocked"),
    ({"dim_metadata": [level(4)]}, 6, "dimensions"),
    ({"dim_metadata": [level(5), *sparse()["dim_metadata"][1:]]}, 6, "sizes"),
    ({"dim_metadata": [level(4), level(0, [0, 1, 1, 2, 3], [2, 0, 3]), level(2)]}, 6,
     "indices"),
    ({"dim_metadata": [level(4), level(0, [0, 1, 1, 2], [2, 0, 1]), level(2)]}, 6,
     "segments"),
    ({"dim_metadata": [level(4), level(0, [0, 9, 1, 2, 3], [2, 0, 1]), level(2)]}, 6,
     "segments"),
    ({"dim_metadata": [level(4), level(0, [0, 1, 1, 2, 3], [2, 0, 1]), level(5)]}, 6,
     "blocks"),
])
def test_the_places_of_a_sparse_tensor(changes, stored, said):
    if said is None:
        verify.check_sparsity(sparse(**changes), [4, 6], stored)
        return
    with pytest.raises(Damaged, match=said):
        verify.check_sparsity(sparse(**changes), [4, 6], stored)


def test_a_large_file_is_verified_in_milliseconds(good):
    """MiniLM takes 20 ms of CPU; this one of 2 layers a third, if the machine rests."""
    begun = time.process_time()
    verify.check(good)
    assert time.process_time() - begun < 0.5


def aborting(monkeypatch, said: str):
    """Has the process of a trial run other code."""
    monkeypatch.setattr(trial.sys, "executable", "/bin/sh")
    real = trial.subprocess.run
    monkeypatch.setattr(trial.subprocess, "run", lambda command, **more: real(
        ["/bin/sh", "-c", said], **more))


@pytest.mark.parametrize("code, said", [
    ("kill -SEGV $$", "signal 11"), ("echo no memory >&2; exit 1", "no memory"),
    ("exec sleep 9", "no answer in 1 s")])
def test_a_file_that_ends_its_trial_is_refused(code, said, good, tmp_path, monkeypatch):
    file = tmp_path / "model.tflite"
    file.write_bytes(good)
    aborting(monkeypatch, code)
    monkeypatch.setattr(trial, "_WAIT_S", 1.0)
    with pytest.raises(ValueError, match=f"Received: {file}.*{said}"):
        Interpreter(file, num_threads=1)


def test_a_file_is_tried_once(good, tmp_path, monkeypatch):
    file = tmp_path / "model.tflite"
    file.write_bytes(good)
    trial.run(file, state_of(file))
    aborting(monkeypatch, "exit 1")
    trial.run(file, state_of(file))
    file.write_bytes(good)
    with pytest.raises(ValueError, match="ended its process"):
        trial.run(file, state_of(file))


@pytest.mark.parametrize("vouched", [True, False])
def test_what_a_bundle_vouches_for_is_not_tried(vouched, good, tiny_dir, tmp_path,
                                                monkeypatch):
    Bundle.write(tmp_path, task=tasks.named("classification")(labels=("a", "b", "c")),
                 tokenizer=tokenizer_from(tiny_dir), max_length=12,
                 scheme="dynamic_wi8_afp32", model=good)
    aborting(monkeypatch, "exit 1")
    if not vouched:
        (tmp_path / "bundle.json").unlink()
        with pytest.raises(ValueError, match="ended its process"):
            Bundle.open(tmp_path, num_threads=1)
    else:
        assert Bundle.open(tmp_path, num_threads=1).predict(["a film"])
