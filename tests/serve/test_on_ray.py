"""The application on Ray Serve: what it is deployed by. Ray itself is a stand-in."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tfopt.serve.app import App


@pytest.fixture
def on_ray(monkeypatch):
    """The module, with a Ray that keeps what it is given."""
    serve = ModuleType("ray.serve")

    def deployment(**options):
        return lambda kind: SimpleNamespace(
            bind=lambda: SimpleNamespace(options=options, app=kind.app))

    def ingress(app):
        def decorate(kind):
            kind.app = app
            return kind
        return decorate

    serve.deployment, serve.ingress, serve.Application = deployment, ingress, object
    ray = ModuleType("ray")
    ray.serve = serve
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    monkeypatch.delitem(sys.modules, "tfopt.serve.on_ray", raising=False)
    yield importlib.import_module("tfopt.serve.on_ray")
    sys.modules.pop("tfopt.serve.on_ray", None)


def test_words_of_the_command_line_become_settings(on_ray):
    made = on_ray.build({"directory": "a", "replicas": "2", "cpus": "0.5",
                         "deadline_ms": "20.5", "queue": "7", "cascade": "true",
                         "watch_s": "none", "name": "7"})
    assert isinstance(made.app, App)
    settings = made.app.service.settings
    assert (settings.directory, settings.deadline_ms, settings.queue) == ("a", 20.5, 7)
    assert (settings.cascade, settings.watch_s, settings.name) == (True, None, "7")
    assert not settings.control
    assert (made.options["num_replicas"], made.options["ray_actor_options"]) == (
        2, {"num_cpus": 0.5})


def test_without_a_number_ray_chooses_it(on_ray):
    options = on_ray.build({"directory": "a", "most": 3, "control": True}).options
    assert "num_replicas" not in options
    assert options["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 8}


@pytest.mark.parametrize(("arguments", "received"), [
    ({}, r"\{\}"), ({"directory": "a", "port": 8}, "port"),
    ({"directory": "a", "replicas": "many"}, "replicas='many'"),
    ({"directory": "a", "replicas": "0"}, "replicas=0"),
    ({"directory": "a", "least": 5}, "least=5"),
    ({"directory": "a", "cpus": "0"}, "cpus=0.0"),
    ({"directory": "a", "queue": "0"}, "queue=0")])
def test_arguments_that_are_wrong_are_told(on_ray, arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}$"):
        on_ray.build(arguments)
