"""The metadata in a `.tflite`: what a client learns of its inputs, outputs and files.

After `metadata_schema.fbs` of LiteRT. The metadata are a FlatBuffer of their own in a
buffer of the model; files such as a vocabulary are a zip behind the model, stored as
they are, of a fixed date, so that equal models are equal bytes.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt.export import flatbuffer, graph_edits
from tfopt.export.tflite_tables import read_tables
from tfopt.export.tflite_walk import Damaged, Walk, require

NAME = "TFLITE_METADATA"  # of the entry in the model
_IDENTIFIER = b"M001"
_LABELS, _VOCABULARY = 2, 5  # kinds of associated files: of an axis, of a tokenizer
_BERT_TOKENIZER = 4  # kind of process unit
_PARSER = "1.1.0"  # the least version of LiteRT's parser, for process units
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can have
# The tables, as far as they are read here; "-" is a field that is not.
_TABLES = read_tables("""
ModelMetadata: name:string - - subgraph_metadata:[SubGraphMetadata]
SubGraphMetadata: - - input_tensor_metadata:[TensorMetadata]
  output_tensor_metadata:[TensorMetadata] - input_process_units:[ProcessUnit]
TensorMetadata: name:string - - - - - associated_files:[AssociatedFile]
AssociatedFile: name:string - type:b
ProcessUnit: options_type:B options:union
BertTokenizerOptions: vocab_file:[AssociatedFile]
""")
_UNIONS = {"options": ["", "", "", "", "BertTokenizerOptions", "", ""]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """What the metadata of a text model say.

    Attributes:
        name: of the model.
        inputs: a client's names of the model's inputs, in the graph's order.
        outputs: the same of its outputs.
        vocabulary: name of the file with the vocabulary of BERT's tokenizer; "" where
            there is none.
        labels: name of the file with the labels of the outputs; "" where there is none.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    vocabulary: str = ""
    labels: str = ""


def added(model, metadata: Metadata, files: Mapping[str, str]) -> bytes:
    """The `.tflite` of a model that has no metadata, with metadata and files.

    Args:
        model: as `flatbuffer.parse` gives it; it is changed.
        metadata: what to say.
        files: name of each file that the metadata name -> its text.

    Returns:
        The `.tflite`; what it computes is the same.

    Raises:
        ValueError: it has metadata already.
    """
    entries = [*(model.metadata or [])]
    if any(entry.name == NAME.encode() for entry in entries):
        raise ValueError("A .tflite without metadata is needed; this one has them "
                         f"already. Received: a model with {NAME}")
    model.metadata = [*entries, graph_edits.metadata(model, NAME, _bytes(metadata))]
    return _with_files(flatbuffer.serialize(model), files)


def read(contents: bytes) -> tuple[Metadata, dict[str, str]] | None:
    """What the metadata of a `.tflite` say, and the files that they name.

    Args:
        contents: of the `.tflite`.

    Returns:
        The metadata, and the text of each file by name; None where there are none.

    Raises:
        ValueError: the file, its metadata or the zip behind it are damaged, or a file
            that the metadata name is not there.
    """
    model = flatbuffer.parse(contents)
    places = [entry.buffer for entry in model.metadata or []
              if entry.name == NAME.encode()]
    if not places:
        return None
    try:
        require(places[0] < len(model.buffers), "its buffer", places[0])
        data = model.buffers[places[0]].data
        found = _parsed(b"" if data is None else bytes(data))
    except Damaged as error:
        raise ValueError("The metadata of a .tflite must be whole. Received: "
                         f"{len(contents)} bytes: {error}") from error
    return found, _unzipped(contents, [found.vocabulary, found.labels])


def _with_files(model: bytes, files: Mapping[str, str]) -> bytes:
    """A model, and behind it a zip, whose places count from the model's start."""
    room = io.BytesIO(model)
    with zipfile.ZipFile(room, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 0  # whatever system wrote it
            archive.writestr(entry, text)
    return room.getvalue()


def _unzipped(contents: bytes, names: Sequence[str]) -> dict[str, str]:
    wanted = [name for name in names if name]
    if not wanted:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            for name in wanted:
                # Stored, a file takes no more room than it has there.
                if sizes.get(name, len(contents) + 1) > len(contents):
                    raise ValueError(f"no {name!r}")
            return {name: archive.read(name).decode("utf-8") for name in wanted}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError,
            RuntimeError) as error:
        raise ValueError(
            f"The files behind a .tflite must be a whole zip with {', '.join(wanted)}. "
            f"Received: {len(contents)} bytes: {error}") from error


def _table(builder: flatbuffer.Builder, size: int, fields: Mapping[int, int],
           numbers: Mapping[int, int] | None = None) -> int:
    """Writes a table of `size` slots: slot -> offset, and slot -> a small number."""
    builder.StartObject(size)
    for slot, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (numbers or {}).items():
        builder.PrependInt8Slot(slot, number, 0)
    return builder.EndObject()


def _vector(builder: flatbuffer.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _bytes(metadata: Metadata) -> bytes:
    """The FlatBuffer; slots are the places of fields in `metadata_schema.fbs`."""
    builder = flatbuffer.Builder(1024)
    text = builder.CreateString

    def file(name: str, kind: int) -> dict[int, int]:
        """Slot of associated files -> the one; empty without a name."""
        return {6: _vector(builder, [_table(builder, 5, {0: text(name)}, {2: kind})])
                } if name else {}

    inputs = [_table(builder, 7, {0: text(name)}) for name in metadata.inputs]
    outputs = [_table(builder, 7, {0: text(name)} | file(metadata.labels, _LABELS))
               for name in metadata.outputs]
    graph = {2: _vector(builder, inputs), 3: _vector(builder, outputs)}
    if metadata.vocabulary:
        words = _table(builder, 5, {0: text(metadata.vocabulary)}, {2: _VOCABULARY})
        options = _table(builder, 1, {0: _vector(builder, [words])})
        graph[5] = _vector(builder, [_table(builder, 2, {1: options},
                                            {0: _BERT_TOKENIZER})])
    graphs = _vector(builder, [_table(builder, 10, graph)])
    builder.Finish(_table(builder, 8, {0: text(metadata.name), 3: graphs,
                                       7: text(_PARSER)}), _IDENTIFIER)
    return bytes(builder.Output())


def _parsed(contents: bytes) -> Metadata:
    """What a FlatBuffer of metadata says.

    Raises:
        Damaged: it is none, or says nothing of a graph.
    """
    found = Walk(contents, _TABLES, _UNIONS).root("ModelMetadata", _IDENTIFIER)
    require(found["subgraph_metadata"], "they must say something of a graph")
    graph = found["subgraph_metadata"][0]
    units = graph["input_process_units"] or []
    tokenizers = [unit["options"] or {} for unit in units
                  if unit["options_type"] == _BERT_TOKENIZER]
    sides = [graph[side] or [] for side in
             ("input_tensor_metadata", "output_tensor_metadata")]
    return Metadata(
        name=found["name"] or "",
        inputs=tuple(one["name"] or "" for one in sides[0]),
        outputs=tuple(one["name"] or "" for one in sides[1]),
        vocabulary=_first_name(one.get("vocab_file") for one in tokenizers),
        labels=_first_name([file for file in one["associated_files"] or []
                            if file["type"] == _LABELS] for one in sides[1]))


def _first_name(lists: Any) -> str:
    """The name of the first file in lists of files; "" where there is none."""
    return next((file["name"] for files in lists for file in files or []
                 if file["name"]), "")
