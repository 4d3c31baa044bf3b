"""Copies of functional models: with variables of their own, of another precision, flat.

A model that is a layer of another is unfolded: its layers take its place, by their own
names, so that all that works on layers works on them.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from tfopt.backend import keras, own_objects, tf
from tfopt.checks import check

_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def rebuilt(model: keras.Model, config: dict | None = None) -> keras.Model:
    """A copy with variables of its own, of the same weights; not compiled.

    Args:
        model: functional; its layers must be rebuilt by their `get_config`.
        config: in place of the model's own.
    """
    # from_config rather than clone_model: the latter keeps the layer objects of some
    # wrappers, and with them their variables.
    with own_objects():
        copy = type(model).from_config(model.get_config() if config is None else config)
    copy.set_weights(model.get_weights())
    return copy


def in_policy(model: keras.Model, policy: str, others: Container[str] = ()
              ) -> keras.Model:
    """A copy whose layers compute by a policy of precision; weights stay float32.

    Args:
        model: functional; its layers must be rebuilt by their `get_config`.
        policy: such as "mixed_bfloat16".
        others: names of layers that stay float32.
    """
    def convert(config, own):
        if isinstance(config, dict):
            return {key: own if key == "dtype" and _policy_name(value) in _POLICIES
                    else convert(value, own) for key, value in config.items()}
        if isinstance(config, list | tuple):
            return type(config)(convert(item, own) for item in config)
        return config

    config = model.get_config()
    config["layers"] = [
        layer if layer["class_name"] == "InputLayer" else convert(
            layer, "float32" if layer["config"]["name"] in others else policy)
        for layer in config["layers"]]
    return rebuilt(model, config)


def is_mixed(model: keras.Model) -> bool:
    """Whether a layer computes in another dtype than that of its weights."""
    return any(layer.compute_dtype not in (None, layer.variable_dtype)
               for layer in model.layers)


def in_float32(model: keras.Model) -> keras.Model:
    """A model that computes in float32: itself, or a copy."""
    return in_policy(model, "float32") if is_mixed(model) else model


def _policy_name(value: Any) -> Any:
    """The name of a policy as configs have it, a word or an object."""
    return value["config"].get("name") if (
        isinstance(value, dict) and isinstance(value.get("config"), dict)) else value


def copy_model(model: keras.Model) -> keras.Model:
    """Copies a functional model, with the layers of models within it in their place.

    Args:
        model: functional; its layers must be rebuilt by their `get_config`. Of models
            within it, two of whose layers have one name, the inner one is called
            "MODEL_LAYER".

    Returns:
        The copy, of the same weights in variables of its own; not compiled.

    Raises:
        ValueError: `check` refuses the model.
    """
    check(model)
    copy = rebuilt(model)
    # Once more: else each layer had a second call, that within the model it was in.
    return rebuilt(_unfolded(copy)) if _nested(copy) else copy


def flat(model: keras.Model) -> keras.Model:
    """A model without models within it: itself, or a copy.

    Raises:
        ValueError: `check` refuses the model.
    """
    check(model)
    return copy_model(model) if _nested(model) else model


def _nested(model: keras.Model) -> list[keras.Model]:
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def _unfolded(model: keras.Model) -> keras.Model:
    """The same layers, called once more, those of models within it by themselves."""
    _rename(model)
    outputs = _called(model, model.inputs, None)
    return keras.Model(
        model._nested_inputs, tf.nest.pack_sequence_as(model._nested_outputs, outputs),
        name=model.name)


def _rename(model: keras.Model) -> None:
    """Gives the layers of models within a model names that are free."""
    taken = {layer.name for layer in model.layers if not isinstance(layer, keras.Model)}

    def enter(inner: keras.Model, prefix: str) -> None:
        for layer in inner.layers:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if isinstance(layer, keras.Model):
                enter(layer, f"{prefix}{layer.name}_")
                continue
            if layer.name in taken:
                layer._name = f"{prefix}{layer.name}"
            taken.add(layer.name)

    for inner in _nested(model):
        enter(inner, f"{inner.name}_")


def _called(model: keras.Model, inputs: list, training: bool | None) -> list:
    """What a graph's layers give for other inputs, as `Functional.call` calls them.

    Args:
        model: the graph.
        inputs: in the order of its own.
        training: what its layers are told; None tells them nothing.

    Returns:
        In the order of its outputs.
    """
    known: dict[str, list] = {}

    def note(tensor_id, value):
        known[tensor_id] = [value] * model._tensor_usage_count[tensor_id]

    for own, given in zip(model.inputs, inputs, strict=True):
        note(str(id(own)), given if given.dtype == own.dtype else tf.cast(
            given, own.dtype))
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            arguments, options = node.map_arguments(known)
            layer = node.layer
            told = options.get("training", training)
            if isinstance(layer, keras.Model):
                found = _called(
                    layer, layer._flatten_to_reference_inputs(arguments[0]), told)
            else:
                if told is not None and layer._expects_training_arg:
                    options["training"] = told
                found = tf.nest.flatten(layer(*arguments, **options))
            for tensor_id, value in zip(node.flat_output_ids, found, strict=True):
                note(tensor_id, value)
    return [known[str(id(tensor))].pop() for tensor in model.outputs]
