"""What a family says of its checkpoints: JSON -> sizes and head, layers -> tensors.

A family is a record, `FAMILY`, in a module of its name: encoders that are alike but for
what their published files call things. One that has more to say overrides a method.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from tfopt.model import layer_names
from tfopt.model.config import EncoderConfig
from tfopt.model.heads import Head
from tfopt.model.left_over import LeftOver
from tfopt.types import shown

_NORMS = (layer_names.ATTENTION_NORM, layer_names.FFN_NORM, layer_names.EMBEDDING_NORM)
_TABLES = (layer_names.TOKEN_EMBEDDING, layer_names.SEGMENT_EMBEDDING,
           layer_names.POSITION_EMBEDDING, layer_names.ATTENTION)
# What the class that wrote a checkpoint says of a head without a pooler.
_TOKENS_ALONE = "ForTokenClassification"
_PLAIN = ("classifier",)  # where no other layer is called so
# Fields of a JSON -> the only value that is honoured, whatever the family.
_HONOURED = {"is_decoder": False, "is_encoder_decoder": False,
             "add_cross_attention": False, "pruned_heads": {},
             "quantization_config": None}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the weights of a layer lie.

    Attributes:
        tensors: names, in the layer's order of weights.
        transposed: whether the first is [out, in], not [in, out].
        skipped: rows of the first that are left out, at its beginning.
        added: a tensor whose first row is added to each row of the first; or None.
    """

    tensors: tuple[str, ...]
    transposed: bool = False
    skipped: int = 0
    added: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture as others publish it.

    Attributes:
        name: of the family, and of its module.
        model_types: of `config.json`.
        encoder: what stands before the encoder's tensors, such as "bert"; it may lack.
        sizes: argument of `EncoderConfig.uniform` -> field of the JSON, which must be
            there.
        options: field of `EncoderConfig` -> field of the JSON, which may be there.
        fixed: fields of `EncoderConfig` that all checkpoints share.
        honoured: field of the JSON -> the only value of it that is honoured, which it
            has where it is not there; beside those that no family honours.
        head_dropout: fields of the JSON for the classifier's dropout; the first that is
            given counts.
        default_head_dropout: where none is given.
        pooler: activation of the pooler.
        below: layer -> tensor, before the encoder layers.
        first_position: the row of the table of positions that the first token has.
        added_to_positions: tensor whose first row every token has added to it.
        layers: what stands before the tensors of encoder layer {}.
        roles: role in an encoder layer -> tensor.
        shared: role in an encoder layer -> tensor, one for all layers.
        above: layer of the head -> tensor; a classifier of tokens may be `classifier`.
        beside: those of the head that are not within the encoder.
        masked_lm: stems of the tensors of the head of masked language modelling: its
            Dense, its LayerNorm, and its output, whose bias is needed and whose
            weights, where they lack, are the table of tokens. None where the family's
            encoder is not trained by it.
        passed_over: regular expressions of tensors that a text's class does not depend
            on, such as of the heads of pretraining.
    """

    name: str
    model_types: tuple[str, ...]
    encoder: str
    sizes: Mapping[str, str]
    options: Mapping[str, str]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    honoured: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head_dropout: tuple[str, ...] = ()
    default_head_dropout: float = 0.1
    pooler: str = "tanh"
    below: Mapping[str, str]
    first_position: int = 0
    added_to_positions: str | None = None
    layers: str
    roles: Mapping[str, str]
    shared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    above: Mapping[str, str]
    beside: tuple[str, ...] = (layer_names.CLASSIFIER,)
    masked_lm: tuple[str, str, str] | None = None
    passed_over: tuple[str, ...] = ()

    def config(self, fields: Mapping[str, Any]) -> EncoderConfig:
        """Reads the sizes from a published JSON.

        Args:
            fields: the parsed JSON.

        Returns:
            The config.

        Raises:
            ValueError: a field is missing, breaks a rule, or asks for what is not
                honoured.
        """
        for name, value in {**_HONOURED, **self.honoured}.items():
            if fields.get(name, value) != value:
                raise ValueError(f"Only {value!r} of {name!r} is supported. "
                                 f"Received: {name}={fields[name]!r}")
        missing = [name for name in self.sizes.values() if name not in fields]
        if missing:
            raise ValueError(f"A config of the family {self.name!r} must give "
                             f"{missing}. Received: {sorted(fields)}")
        for name in self.sizes.values():
            size = fields[name]
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"`{name}` must be a positive whole number. Received: "
                                 f"{name}={size!r}")
        own = {ours: fields[theirs] for ours, theirs in self.sizes.items()}
        if self.first_position:
            own["max_positions"] -= self.first_position
        if own.get("embedding_size") == own["hidden_size"]:
            del own["embedding_size"]
        return EncoderConfig.uniform(
            **own, **{ours: fields[theirs] for ours, theirs in self.options.items()
                      if theirs in fields},
            **self.fixed, family=self.name)

    def head(self, fields: Mapping[str, Any], outputs: int | None = None) -> Head:
        """Reads a checkpoint's own head.

        Args:
            fields: the parsed JSON.
            outputs: of the classifier that was trained; None for none.

        Returns:
            The head; where no classifier was trained, one of two classes.

        Raises:
            ValueError: a field is of another type than published ones are.
        """
        made = fields.get("architectures") or []
        if not isinstance(made, list):
            raise ValueError("A checkpoint's `architectures` must be a list. Received: "
                             f"architectures={shown(made)}")
        dropout = next((fields[name] for name in self.head_dropout
                        if fields.get(name) is not None), self.default_head_dropout)
        own = Head(outputs=outputs or 2, pooler=self.pooler, dropout=dropout)
        if any(str(name).endswith(_TOKENS_ALONE) for name in made):
            return own.replace(reads="all", pooler=None)
        return own

    def weights(self, config: EncoderConfig, names: Collection[str]
                ) -> dict[str, Source]:
        """Finds the weights of every layer that was published.

        Args:
            config: the sizes.
            names: of the tensors in the file.

        Returns:
            Layer -> where its weights lie; all layers of the encoder, and those of the
            head that are there.

        Raises:
            ValueError: the tensors are of another family.
        """
        first = self.below[layer_names.TOKEN_EMBEDDING]
        prefix = next((prefix for prefix in (
            "", f"{self.encoder}.", f"model.{self.encoder}.")
            if f"{prefix}{first}.weight" in names), None)
        if prefix is None:
            raise ValueError(f"The weights must be of the family {self.name!r}. "
                             f"Received: {sorted(names)[:3]}...")
        found = self._encoder(config, prefix)
        outside = prefix.removesuffix(f"{self.encoder}.")
        for layer, stem in self.above.items():
            places = (outside, "") if layer in self.beside else (prefix,)
            stems = (stem, *(_PLAIN if layer == layer_names.CLASSIFIER else ()))
            sources = (_source(layer, f"{place}{stem}")
                       for stem in stems for place in places)
            there = next((source for source in sources
                          if set(source.tensors) & set(names)), None)
            if there:
                found[layer] = there
        return found

    def left_over(self, sources: Mapping[str, Source], names: Collection[str],
                  layers: int) -> LeftOver:
        """The tensors of a file of which nothing was made.

        Args:
            sources: of `weights`.
            names: of the tensors in the file.
            layers: of the encoder, by its config.

        Returns:
            Their names; without those that are `passed_over`.
        """
        first = f"{self.below[layer_names.TOKEN_EMBEDDING]}.weight"
        prefix = sources[layer_names.TOKEN_EMBEDDING].tensors[0].removesuffix(first)
        parts = {stem.partition(".")[0] for stem in (*self.below.values(), self.layers)}
        within = tuple(f"{prefix}{part}." for part in parts)
        number = re.compile(re.escape(f"{prefix}{self.layers}.").replace(
            r"\{\}", r"(\d+)"))
        used = {name for source in sources.values()
                for name in (*source.tensors, source.added)}
        others = sorted(name for name in set(names) - used
                        if not any(re.search(passed, name)
                                   for passed in self.passed_over))
        beyond = tuple(name for name in others
                       if (layer := number.match(name)) and int(layer[1]) >= layers)
        inner = tuple(name for name in others
                      if name.startswith(within) and name not in beyond)
        return LeftOver(inner=inner, beyond=beyond, outer=tuple(
            name for name in others if name not in (*inner, *beyond)))

    def published(self, config: EncoderConfig) -> dict[str, Source]:
        """Where the weights of a whole model are to be written, as `weights` finds."""
        return self._encoder(config, f"{self.encoder}.") | {
            layer: _source(layer, stem if layer in self.beside else
                           f"{self.encoder}.{stem}")
            for layer, stem in self.above.items()}

    def _encoder(self, config: EncoderConfig, prefix: str) -> dict[str, Source]:
        found = {layer: _source(layer, f"{prefix}{stem}")
                 for layer, stem in self.below.items()
                 if config.embedding_size or layer != layer_names.EMBEDDING_PROJECTION}
        added = self.added_to_positions
        found[layer_names.POSITION_EMBEDDING] = dataclasses.replace(
            found[layer_names.POSITION_EMBEDDING], skipped=self.first_position,
            added=added and f"{prefix}{added}.weight")
        for i in range(config.num_layers):
            found |= {layer_names.layer_name(i, role): _source(
                role, f"{prefix}{self.layers.format(i)}.{stem}")
                for role, stem in self.roles.items()}
            found |= {layer_names.layer_name(i, role): _source(role, f"{prefix}{stem}")
                      for role, stem in self.shared.items()}
        return found

    def to_fields(self, config: EncoderConfig) -> dict[str, Any]:
        """The JSON of a config, as `config` reads it.

        Args:
            config: of layers that are all of one size.
        """
        sizes = {"num_layers": config.num_layers, "num_heads": config.num_heads[0],
                 "intermediate_size": config.intermediate_sizes[0],
                 "embedding_size": config.embedding_width,
                 "max_positions": config.max_positions + self.first_position}
        return {"model_type": self.model_types[0], **{
            theirs: sizes[ours] if ours in sizes else getattr(config, ours)
            for ours, theirs in (*self.sizes.items(), *self.options.items())}}


def _source(layer: str, stem: str) -> Source:
    """Of a table, a LayerNorm or a Dense, by the name of the layer or its role."""
    if layer in _TABLES:
        return Source((f"{stem}.weight",))
    return Source((f"{stem}.weight", f"{stem}.bias"), transposed=layer not in _NORMS)
