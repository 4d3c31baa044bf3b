"""The configuration of a saved model, checked before Keras reads it.

Keras imports what a configuration names and calls what it finds there; a file from
outside may name `os.system`. So every object in it must be of `known_classes`, or of
those that the caller gives. Its graph must be one that can be built: Keras goes on
without end over one that cannot.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from tfopt.backend import keras
from tfopt.model import known_classes as known

_CONSTANT = "_CONSTANT_VALUE"  # in the place of a layer's name
_MOST_LAYERS = 5000
_STATES = {"LSTM": 3, "GRU": 2, "SimpleRNN": 2}  # outputs of those that return states
Config = Mapping[str, Any]


def check(config: Config, custom_objects: Mapping[str, Any] | None = None) -> None:
    """Checks a configuration, and imports the layers of tfopt that it names.

    Args:
        config: of a model, as parsed from a file.
        custom_objects: name -> class or function of the user's own.

    Raises:
        ValueError: it names a class or function that is not known, or its graph cannot
            be built; names layer and class.
    """
    own = dict(custom_objects or {})
    for module in _our_modules(config):
        importlib.import_module(module)
    if config.get("class_name") not in known.NESTED and not _is_own(config, own):
        raise ValueError(f"it must be a functional model or a Sequential, not a "
                         f"{config.get('class_name')!r}")
    objects = [(holder, layer) for holder, layer in _holders(config)
               if "class_name" in holder]
    for holder, layer in objects:
        _check_object(holder, own, layer)
    models = [_layers(holder) for holder, _ in objects]
    if sum(map(len, models)) > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")
    for layers in models:
        if any("inbound_nodes" in one for one in layers):
            _check_graph(layers)


def _our_modules(config: Config) -> set[str]:
    """The modules of tfopt whose classes are named."""
    named = [holder for holder, _ in _holders(config) if "class_name" in holder]
    if any(str(holder["class_name"]).startswith("tfopt>") for holder in named):
        return set(known.OUR_MODULES)  # it does not say of which
    modules = {str(holder.get("module")) for holder in named}
    if any(str(holder.get("config")).startswith("tfopt>") for holder in named
           if holder["class_name"] == "function"):
        modules |= {"tfopt.model.layers", "tfopt.xla"}
    return {known.MOVED.get(module, module) for module in modules} & set(
        known.OUR_MODULES)


def _holders(config: Config) -> Iterator[tuple[Config, str]]:
    """Every object within an object, and the layer that it is in."""
    waiting: list[tuple[Any, str]] = [(config, "")]
    while waiting:
        value, layer = waiting.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            layer = name if isinstance(name, str) else layer
            yield value, layer
        parts = value.values() if isinstance(value, dict) else value
        waiting += [(part, layer) for part in parts if isinstance(part, dict | list)]


def _layers(holder: Config) -> list:
    """The layers of a nested model; none of another object."""
    inner = holder.get("config")
    found = inner.get("layers", []) if isinstance(inner, dict) else []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("a model's layers must be a list of objects")
    return found


def _check_object(found: Config, own: Mapping[str, Any], layer: str) -> None:
    name, module = found["class_name"], found.get("module")
    registered, inner = found.get("registered_name"), found.get("config")
    if not all(isinstance(word, str | None) for word in (name, module, registered)):
        raise ValueError("names of classes must be texts")
    if name == "function":
        fits = module in known.FUNCTION_MODULES and inner in known.FUNCTIONS
        fits = fits or (isinstance(inner, str) and (
            inner in own or _is_ours(inner.removeprefix("tfopt>"), module, inner)))
        name = inner
    elif name in ("__tensor__", "__numpy__"):
        fits = isinstance(inner, dict) and inner.get("dtype") in known.NUMBERS
    elif name in known.OPERATION_LAYERS:
        fits = (module == known.OPERATION_MODULE and registered in (None, name)
                and isinstance(inner, dict)
                and inner.get("function") in known.TF_FUNCTIONS)
        name = f"{name} of {inner.get('function') if isinstance(inner, dict) else ''}"
    elif module is None:  # as layers wrote what they hold, once
        fits = _is_own(found, own) or (registered is None or registered == name) and (
            _is_ours(name.removeprefix("tfopt>"), None, name)
            or any(name in names for names in known.CLASSES.values()))
    else:
        fits = (name in known.CLASSES.get(module, ()) and registered in (None, name)
                or _is_ours(name, module, registered) or _is_own(found, own))
    if not fits:
        raise ValueError(
            "it must be of known classes; those of your own are given as "
            f"`custom_objects`: {module or ''}{'.' if module else ''}{name}"
            + (f" in the layer {layer!r}" if layer else ""))


def _is_ours(name: str, module: str | None, registered: str | None) -> bool:
    """Whether a class or function is one that tfopt has registered itself."""
    if registered != f"tfopt>{name}":
        return False
    there = getattr(keras.saving.get_registered_object(registered), "__module__", "")
    return there in known.OUR_MODULES and (
        module in (None, "builtins") or known.MOVED.get(module, module) == there)


def _is_own(found: Config, own: Mapping[str, Any]) -> bool:
    """Whether Keras will find an object among those that the caller gives."""
    name = found.get("registered_name") or found.get("class_name")
    if not isinstance(name, str):
        return False
    if found.get("module") is not None and not found.get("registered_name"):
        return False  # which Keras would import
    return name in own or any(
        value is keras.saving.get_registered_object(name) for value in own.values())


def _check_graph(given: list) -> None:
    """Checks that a functional model can be built, node by node, as Keras does it."""
    layers: dict[str, Config] = {}
    for layer in given:
        name, nodes = layer.get("name"), layer.get("inbound_nodes")
        inner = layer.get("config")
        if not isinstance(name, str) or not isinstance(nodes, list) or name in layers:
            raise ValueError("each layer must have a name of its own, and a list of "
                             f"nodes: {str(name)[:60]!r}")
        if not isinstance(inner, dict) or inner.get("name") != name:
            raise ValueError(f"a layer must be called the same twice: {name[:60]!r}")
        layers[name] = layer
    waiting = {name: list(layer["inbound_nodes"]) for name, layer in layers.items()}
    # Its first node a nested model has of its own.
    done = {name: _first_node(layer) for name, layer in layers.items()}
    made = {(name, 0) for name, layer in layers.items()
            if layer.get("class_name") == "InputLayer"}
    while any(waiting.values()):
        before = len(made)
        for name, nodes in waiting.items():
            while nodes and _is_ready(nodes[0], made, layers):
                nodes.pop(0)
                made.add((name, done[name]))
                done[name] += 1
        if len(made) == before:
            name = next(name for name, nodes in waiting.items() if nodes)
            raise ValueError("a layer must be called on what other layers give: "
                             f"{name[:60]!r}")


def _first_node(layer: Config) -> int:
    if layer.get("class_name") not in known.NESTED:
        return 0
    kinds = [one.get("class_name") for one in _layers(layer)]
    if layer["class_name"] == "Sequential":
        kinds = kinds[:1]
    return int("InputLayer" in kinds)


def _leaves(value: Any, inner: bool = False) -> Iterator[tuple[list, bool]]:
    """References to layers in a node, each with whether it is a named argument."""
    if isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str):
        yield value, inner
        if not inner:
            yield from _leaves(value[3] if len(value) == 4 else [], True)
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part, inner)


def _is_ready(node: Any, made: set, layers: Mapping[str, Config]) -> bool:
    """Whether all that a layer is called on has been computed."""
    leaves = list(_leaves(node))
    if all(reference[0] == _CONSTANT for reference, _ in leaves):
        raise ValueError("a layer must be called on what other layers give: "
                         f"{str(node)[:60]}")
    return all(_is_made(leaf, made, layers) for leaf in leaves)


def _is_made(leaf: tuple[list, bool], made: set, layers: Mapping[str, Config]) -> bool:
    reference, inner = leaf
    name, node, output = reference[:3]
    if name == _CONSTANT and not inner:
        if not _is_numbers(output):
            raise ValueError("a constant in a graph must be of numbers: "
                             f"{str(output)[:60]!r}")
        return True
    if name not in layers or type(node) is not int or type(output) is not int:
        raise ValueError("a layer must be called on what layers of the model give: "
                         f"{str(reference)[:60]}")
    if inner and not 0 <= output < _outputs(layers[name]):
        raise ValueError("a layer must be called on an output that there is: "
                         f"{str(reference)[:60]}")
    if layers[name].get("class_name") == "InputLayer":
        node = 0
    return (name, node) in made


def _outputs(layer: Config) -> int:
    config, name = layer["config"], layer.get("class_name")
    if name in known.NESTED:
        return max(1, len(config.get("output_layers", ())))
    return _STATES.get(str(name), 1) if config.get("return_state") else 1


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numbers, value))
    return value is None or isinstance(value, int | float)
