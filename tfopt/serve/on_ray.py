"""The service on several machines: Ray Serve mounts the same application.

    serve run tfopt.serve.on_ray:build directory=/models/intents replicas=2

Each replica is a process with models, queue and threads of its own. Needs the extra
`ray`; docs/several_machines.md says what is different there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray import serve

from tfopt.serve.app import App
from tfopt.serve.settings import Settings
from tfopt.types import check_fields, check_types, few, shown

_WORDS = {"true": True, "false": False, "none": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many processes answer.

    Attributes:
        replicas: as many; None leaves it to Ray, within the next two.
        least: replicas, at least 1.
        most: replicas, not below `least`.
        requests: that one replica has on its way at which Ray adds another.
        cpus: of a replica.
    """

    replicas: int | None = None
    least: int = 1
    most: int = 4
    requests: int = 8
    cpus: float = 1.0

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a value is of another type, or out of its range.
        """
        check_types(self)
        check_fields(self, {
            "replicas": (self.replicas is None or self.replicas >= 1, "at least 1"),
            "least": (1 <= self.least <= self.most, "at least 1, and at most `most`"),
            "requests": (self.requests >= 1, "at least 1"),
            "cpus": (self.cpus > 0, "above 0")})

    def options(self) -> dict[str, Any]:
        """The options of a Ray deployment."""
        scaling = {"min_replicas": self.least, "max_replicas": self.most,
                   "target_ongoing_requests": self.requests}
        return {"ray_actor_options": {"num_cpus": self.cpus},
                # What waits, waits in the replica, which knows its deadline.
                "max_ongoing_requests": 1024,
                **({"autoscaling_config": scaling} if self.replicas is None
                   else {"num_replicas": self.replicas})}


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """Makes the application that `serve run` runs.

    Args:
        arguments: fields of `Settings` and of `Replicas`; values may be words, as the
            command line gives them.

    Returns:
        The application, bound.

    Raises:
        ValueError: a field is unknown, or its value is wrong.
    """
    if "directory" not in arguments:
        raise ValueError("There must be directory=... . Received: "
                         f"{shown(dict(arguments))}")
    # A replica would be loaded alone.
    settings = _made(Settings, {"control": False, **arguments})
    replicas = _made(Replicas, arguments)
    unknown = set(arguments) - {field.name for kind in (Settings, Replicas)
                                for field in dataclasses.fields(kind)}
    if unknown:
        raise ValueError("Arguments must be fields of Settings or Replicas. Received: "
                         f"{few(sorted(unknown))}")

    class Texts:
        """The application, in a replica."""

    mounted = serve.ingress(App(settings))(Texts)
    return serve.deployment(name="tfopt", **replicas.options())(mounted).bind()


def _made(kind: type, arguments: Mapping[str, Any]) -> Any:
    """A record of those arguments that are its fields."""
    return kind(**{field.name: _value(str(field.type), arguments[field.name])
                   for field in dataclasses.fields(kind) if field.name in arguments})


def _value(kind: str, value: Any) -> Any:
    """A word of the command line as a value of a field's type."""
    if not isinstance(value, str) or kind.startswith("str"):
        return value
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    try:
        return (int if kind.startswith("int") else float)(value)
    except ValueError:
        return value  # which the record refuses
