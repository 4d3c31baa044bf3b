"""The house rules, held on the source: who imports whom, and what a module is like."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import tfopt
from tfopt.model import layer_names

HOUSE = Path(tfopt.__file__).parent
MODULES = {path.relative_to(HOUSE).as_posix(): path
           for path in sorted(HOUSE.rglob("*.py"))}
EXAMPLES = {path.relative_to(HOUSE.parent).as_posix(): path for path in sorted(
    (HOUSE.parent / "examples").rglob("*.py"))}
# Those of the scripts, too, by which length is measured.
ALL = MODULES | EXAMPLES | {
    path.relative_to(HOUSE.parent).as_posix(): path for path in sorted(
        (HOUSE.parent / "experiments").rglob("*.py"))}
GROUND = {"backend", "types", "checks", "files", "functional", "machine", "switches",
          "xla", "inputs", "checkpoint_names", "hub", "sentence_files", "shard_index"}
MAX_LINES, MAX_FUNCTION_LINES, MAX_EXAMPLE_LINES = 300, 60, 150

# Part of the house -> the other parts it may import. A part is a module or package
# right under tfopt/; compress/ is two: its core, and each pass; export's
# table of schemes is one of its own.
ALLOWED = {
    "backend": set(),
    "types": set(),
    "files": {"types"},
    "checks": {"backend"},
    "functional": {"backend", "checks"},
    "machine": set(),
    "checkpoint_names": {"types", "hub", "sentence_files"},
    "hub": {"types", "sentence_files", "shard_index"},
    "sentence_files": {"types", "files"},
    "shard_index": {"types", "files"},
    "inputs": {"types"},
    "switches": {"backend"},
    "xla": {"backend", "switches"},
    "report": {"types", "files", "machine", "markdown", "drawing", "metrics"},
    "report_formats": {"files", "report"},
    "gate": {"report"},
    "markdown": set(),
    "metrics": set(),
    "drawing": set(),
    "data": GROUND,
    "model": GROUND,
    "sparse": GROUND,
    "train": GROUND,
    # The light half; what trains is imported within methods.
    "tasks": {*GROUND, "report", "model", "train"},
    # The table that an export and the training for it have in common.
    "schemes": {"types"},
    "compress": {*GROUND, "model", "train", "tasks", "schemes", "passes"},
    "passes": {*GROUND, "drawing", "model", "train", "tasks", "sparse", "schemes",
               "compress"},
    "callbacks": {"compress", "train"},
    # Puts the others together for those who write one line.
    "api": {*GROUND, "compress", "passes", "train", "model", "data", "measure",
                 "export"},
    "export": {*GROUND, "model", "schemes"},
    "measure": {*GROUND, "model", "export", "tasks"},
    # Of tasks the light half, of export what runs a .tflite.
    "serve": {*GROUND, "data", "tasks", "export"},
    # The road; it knows no pass by name, and no flags.
    "pipeline": {*GROUND, "report", "report_formats", "metrics", "markdown", "drawing",
                 "data", "model", "sparse", "train", "tasks", "compress", "export",
                 "measure", "serve"},
    "cli": {*GROUND, "report", "gate", "markdown", "drawing", "data", "model", "train",
            "tasks", "compress", "measure", "serve", "pipeline"},
    # The facade may name everything but what a pass or a script is made of.
    "tfopt": {"callbacks", "compress", "data", "export", "measure", "model",
              "api", "passes", "pipeline", "report", "serve", "sparse", "tasks",
              "train"},
}
# The one door to these, each with the reason in its docstring.
DOORS = {"tensorflow": "backend.py", "tf_keras": "backend.py", "keras": "backend.py",
         "tensorflow_model_optimization": "backend.py",
         "ai_edge_quantizer": "export/aeq.py",
         "flatbuffers": "export/flatbuffer.py", "huggingface_hub": "hub.py"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def tree(module: str) -> ast.Module:
    return parsed(MODULES[module])


def imports(module: str) -> list[str]:
    """Dotted names of all a module imports, wherever in it; relative ones resolved."""
    return imports_of(tree(module), ["tfopt", *module.split("/")[:-1]])


def imports_of(source: ast.Module, package: list[str]) -> list[str]:
    """The same of a parsed file in a package."""
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            found += [f"{name}.{alias.name}" for alias in node.names]
    return found


def part(name: str) -> str:
    """The part of the house that a dotted name under tfopt belongs to."""
    words = name.split(".")
    for split in (["compress", "passes"], ["export", "schemes"]):
        if words[1:3] == split:
            return split[-1]
    return words[1] if len(words) > 1 else words[0]


def home(module: str) -> str:
    return part(".".join(["tfopt", *module.removesuffix(".py").split("/")])
                .removesuffix(".__init__"))


def hold(rule: Callable[[str], str | None], names: Iterable[str]):
    """Holds a rule for every name, and reports all that break it at once.

    One item a rule, not one a module: hundreds of items cost more than the checks.

    Args:
        rule: Of a name; what is wrong with it and what to do, or None.
        names: Modules, packages or names of the facade; at least one.
    """
    names = list(names)
    assert names, "Nothing to check: the rule would hold whatever happens."
    broken = [problem for problem in map(rule, names) if problem]
    assert not broken, "\n".join(["", *broken])


def test_a_rule_reports_all_that_break_it():
    with pytest.raises(AssertionError, match="(?s)odd 1.*odd 3"):
        hold(lambda name: f"odd {name}" if int(name) % 2 else None, "0123")
    hold(lambda name: None, "0123")
    with pytest.raises(AssertionError, match="whatever happens"):
        hold(lambda name: None, ())


def test_the_reader_of_imports_sees_every_kind(monkeypatch, tmp_path):
    source = tmp_path / "m.py"
    source.write_text("import a.b\nfrom c import d\ndef f():\n    from . import e\n"
                      "    from ..g import h\nif TYPE_CHECKING:\n    import i as j\n")
    monkeypatch.setitem(MODULES, "compress/passes/m.py", source)
    assert sorted(imports("compress/passes/m.py")) == sorted([
        "a.b", "c.d", "tfopt.compress.passes.e", "tfopt.compress.g.h", "i"])
    assert home("compress/passes/m.py") == "passes"
    assert [home(name) for name in ("compress/base.py", "report.py", "__init__.py")] \
        == ["compress", "report", "tfopt"]


def test_the_house_is_found():
    assert {"backend.py", "model/encoder.py", "compress/passes/magnitude.py"} <= set(
        MODULES)


def test_imports_only_what_its_part_may():
    def rule(module):
        own = home(module)
        if own not in ALLOWED:
            return (f"{module} is of a new part, {own!r}: say in ALLOWED what it may "
                    "import.")
        found = {part(name) for name in imports(module)
                 if name.split(".")[0] == "tfopt" and part(name) in ALLOWED}
        wrong = sorted(found - ALLOWED[own] - {own})
        return wrong and (
            f"{module} imports {wrong}; {own!r} may import {sorted(ALLOWED[own])} "
            "only. Pass the value in as an argument (data reaches a pass through "
            "Context), or move what both need to tfopt/types.py or a part that both "
            "may import.")

    hold(rule, MODULES)


def test_a_pass_imports_no_other_pass():
    def rule(module):
        own = "tfopt." + module.removesuffix(".py").replace("/", ".")
        others = [name for name in imports(module)
                  if part(name) == "passes" and not name.startswith(own)]
        return others and (
            f"{module} imports {others}: a pass stands alone. Move what both need to "
            "the core (tfopt/compress/*.py), and let a recipe put passes together.")

    hold(rule, [name for name in MODULES if home(name) == "passes"])


def test_no_pass_is_known_by_name_outside():
    def rule(module):
        known = [name for name in imports(module)
                 if name.startswith("tfopt.compress.passes.")]
        return known and (
            f"{module} imports {known}: ask compress.registry.all_passes(), so that a "
            "new pass needs no edit here.")

    hold(rule, [name for name in MODULES if home(name) not in ("passes", "tfopt")])


def test_layers_are_named_by_one_module_alone():
    """Their names are words of exported files, too: one place must change them."""
    spelled = {name for name, value in vars(layer_names).items()
               if name.isupper() and isinstance(value, str) and value.isidentifier()}
    words = {getattr(layer_names, name) for name in spelled} - {
        "query", "key", "value", "attention",  # common words, no layer outside
        "attention_dropout", "classifier_dropout"}  # fields of configs, too

    def rule(module):
        nodes = list(ast.walk(tree(module)))
        documents = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        found = sorted({node.value for node in nodes if isinstance(node, ast.Constant)
                        and isinstance(node.value, str) and id(node) not in documents
                        and (node.value in words or re.search(
                            r"\blayer_(\d|\\d|$)", node.value))})
        return found and (
            f"{module} spells {found}, names of layers: ask model.anatomy.Anatomy for "
            "the layer, or a function of model.layer_names for that of a tensor.")

    # A head's fields are called as its layers, and so are published tensors.
    own = ("model/layer_names.py", "model/heads.py", "model/families/")
    hold(rule, [name for name in MODULES if not name.startswith(own)])


def test_unstable_packages_come_through_their_door():
    def rule(module):
        wrong = sorted({name for name in imports(module)
                        if DOORS.get(name.split(".")[0], module) != module})
        return wrong and (
            f"{module} imports {wrong}; each has one door, of which others import "
            "what they need, such as `from tfopt.backend import keras, tf, tfmot`: "
            f"{DOORS}.")

    hold(rule, MODULES)


def test_server_side_modules_load_no_tensorflow_by_the_door():
    light = {
        "checkpoint_names.py", "data/byte_bpe.py", "data/corpus.py", "data/readers.py",
        "data/tokenizer.py", "data/tokenizer_json.py", "data/wordpiece.py",
        "drawing.py", "export/interpreter.py", "export/litert.py", "export/schemes.py",
        "files.py", "hub.py", "inputs.py", "markdown.py", "measure/latency.py",
        "measure/worker.py", "report.py", "sentence_files.py", "shard_index.py",
        "types.py",
        *(name for name in MODULES if home(name) == "serve")}
    assert light <= set(MODULES)

    def rule(module):
        wrong = [name for name in imports(module) if part(name) in ("backend", "model")]
        return wrong and (
            f"{module} imports {wrong}: it must run where TensorFlow is not "
            "installed. Import it within the function that needs it, in another "
            "module.")

    hold(rule, light)


def test_nothing_imports_the_experiments_or_examples():
    scripts = {path.stem for path in (HOUSE.parent / "experiments").glob("*.py")}
    assert scripts and EXAMPLES
    scripts |= {path.stem for path in EXAMPLES.values()}

    def rule(module):
        wrong = [name for name in imports(module)
                 if name.split(".")[0] in {"experiments", "examples", *scripts}]
        return wrong and (
            f"{module} imports {wrong}: move what the library needs from the script "
            "into tfopt/, and import it there.")

    hold(rule, MODULES)


def test_examples_import_what_the_api_reference_has():
    reference = "".join(page.read_text(encoding="utf-8") for page in sorted(
        (HOUSE.parent / "docs" / "api").glob("*.md")))
    public = set(re.findall(r"^::: (\S+)$", reference, re.MULTILINE)) | {"tfopt"}

    def rule(example):
        wrong = [name for name in imports_of(parsed(EXAMPLES[example]), [])
                 if name.split(".")[0] == "tfopt" and name not in public
                 and name.rpartition(".")[0] not in public]
        return wrong and (
            f"{example} imports {wrong}: an example shows what users may call, the "
            "facade and the modules of docs/api.")

    hold(rule, EXAMPLES)


def test_nothing_is_printed():
    def rule(module):
        lines = [node.lineno for node in ast.walk(tree(module))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                 and node.func.id == "print"]
        return lines and (
            f"{module} prints on the lines {lines}; use `from absl import logging`: a "
            "library's caller decides what is shown.")

    # The standard output of measure/worker.py is a protocol; commands print answers.
    hold(rule, [name for name in MODULES
                if name != "measure/worker.py" and home(name) != "cli"])


def test_json_is_written_by_one_function_alone():
    """Which refuses NaN: Python writes it, and no other reader takes it."""
    def rule(module):
        lines = [node.lineno for node in ast.walk(tree(module))
                 if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps")
                 and isinstance(node.value, ast.Name) and node.value.id == "json"]
        return lines and (
            f"{module} writes JSON on the lines {lines}: call `files.to_json`, which "
            "says where a number is none.")

    hold(rule, [name for name in MODULES if name != "files.py"])


def test_every_module_opens_by_saying_what_it_does():
    def rule(module):
        text = ast.get_docstring(tree(module)) or ""
        said = len(text.split()) >= 4 and text.splitlines()[0].endswith((".", ":"))
        return None if said else (
            f"{module} must open with a docstring: what it does, on which arrow of "
            "the flow, after which source.")

    hold(rule, MODULES)


def test_no_module_is_too_long():
    def rule(module):
        count = len(ALL[module].read_text(encoding="utf-8").splitlines())
        return None if count <= MAX_LINES else (
            f"{module} has {count} lines, more than {MAX_LINES}: split it, a concept "
            "a module.")

    hold(rule, ALL)


def test_no_example_is_too_long():
    def rule(example):
        count = len(EXAMPLES[example].read_text(encoding="utf-8").splitlines())
        return None if count <= MAX_EXAMPLE_LINES else (
            f"{example} has {count} lines, more than {MAX_EXAMPLE_LINES}: a newcomer "
            "reads it; let tfopt or a library do more of it.")

    hold(rule, EXAMPLES)


def test_every_example_has_a_readme_and_is_in_the_documents():
    page = (HOUSE.parent / "docs" / "applications.md").read_text(encoding="utf-8")

    def rule(folder):
        there = (HOUSE.parent / folder / "README.md").is_file()
        return None if there and f"`{folder}`" in page else (
            f"{folder} must have a README.md, and a place in docs/applications.md.")

    hold(rule, {Path(example).parent.as_posix() for example in EXAMPLES})


def test_no_function_is_too_long():
    def rule(module):
        tree = ast.parse(ALL[module].read_text(encoding="utf-8"))
        long = [node.name for node in ast.walk(tree) if isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES]
        return None if not long else (
            f"{module}: {', '.join(long)} has more than {MAX_FUNCTION_LINES} lines, "
            "its docstring counted: split it.")

    hold(rule, ALL)


def test_every_name_of_the_facade_resolves():
    hold(lambda name: None
         if getattr(tfopt, name, None) is not None and name in dir(tfopt)
         else f"tfopt.{name} is in __all__: import it in tfopt/__init__.py.",
         tfopt.__all__)


def test_the_facade_refuses_other_names():
    with pytest.raises(AttributeError, match="'nothing'"):
        tfopt.nothing  # noqa: B018


def test_the_facade_lists_its_names_once_in_order():
    assert list(tfopt.__all__) == sorted(set(tfopt.__all__)), (
        "Keep tfopt.__all__ sorted, each name once.")


def test_every_name_of_a_package_resolves():
    def rule(package):
        module = importlib.import_module(package)
        missing = [name for name in getattr(module, "__all__", [])
                   if not hasattr(module, name)]
        return missing and f"{package}.__all__ names {missing}: import them there."

    hold(rule, sorted({"tfopt." + Path(name).parent.as_posix().replace("/", ".")
                       for name in MODULES if name.endswith("/__init__.py")}))
