"""The paths of the service beside answers: health, models, repository, pages."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tfopt.serve import bodies, calls, inference, openapi, page, v2
from tfopt.serve.inference import Inference
from tfopt.serve.monitor import CONTENT_TYPE
from tfopt.serve.refusal import Refusal
from tfopt.serve.repository import describe
from tfopt.serve.service import Service

_EXTENSIONS = ["model_repository"]
# Loads wait for each other here, where no metrics wait behind them.
_CONTROL = ThreadPoolExecutor(1, "control")


def routes(service: Service, infer: Inference) -> list[Route]:
    """All paths, for Starlette.

    Args:
        service: answers.
        infer: of the paths that give answers.
    """
    def route(path: str, endpoint: Callable[[Service, Request], Awaitable[Response]],
              *methods: str) -> Route:
        return Route(path, functools.partial(endpoint, service),
                     methods=list(methods or ("GET",)))

    model, version = "/v2/models/{model}", "/versions/{version}"
    repository = "/v2/repository/models/{model}"
    return [
        Route(inference.PREDICT, infer, methods=["POST"]),
        Route(f"{model}/infer", infer, methods=["POST"]),
        Route(f"{model}{version}/infer", infer, methods=["POST"]),
        route("/v2", _server), route("/v2/health/live", _live),
        route("/v2/health/ready", _ready),
        route(model, _metadata), route(f"{model}{version}", _metadata),
        route(f"{model}/ready", _model_ready),
        route(f"{model}{version}/ready", _model_ready),
        route("/v2/repository/index", _index, "GET", "POST"),
        route(f"{repository}/load", _load, "POST"),
        route(f"{repository}/unload", _unload, "POST"),
        route("/metrics", _metrics), route("/openapi.json", _openapi),
        route("/docs", _docs), route("/", _page)]


async def _server(_: Service, __: Request) -> Response:
    from tfopt import __version__

    return JSONResponse({"name": "tfopt", "version": __version__,
                         "extensions": _EXTENSIONS})


async def _live(_: Service, __: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(service: Service, _: Request) -> Response:
    return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)


async def _metadata(service: Service, request: Request) -> Response:
    return JSONResponse(v2.metadata(_model(service, request)))


async def _model_ready(service: Service, request: Request) -> Response:
    model = _model(service, request)
    return JSONResponse({"name": model.name, "ready": True})


def _model(service: Service, request: Request) -> Any:
    model = service.repository.get(request.path_params["model"])
    version = request.path_params.get("version")
    if version is not None:
        inference.check_version(model, version)
    return model


async def _index(service: Service, request: Request) -> Response:
    asked = await _object(service, request)
    calls.check_keys(asked, ("ready",), "A request for the index")
    states = map(describe, await _in_thread(service.repository.index))
    return JSONResponse([state for state in states
                         if not asked.get("ready") or state["state"] == "READY"])


async def _load(service: Service, request: Request) -> Response:
    await _check_control(service, request)
    name = request.path_params["model"]
    model = await _in_thread(service.repository.load, name, executor=_CONTROL)
    return JSONResponse({"name": name, "version": str(model.version)})


async def _unload(service: Service, request: Request) -> Response:
    await _check_control(service, request)
    name = request.path_params["model"]
    await _in_thread(service.repository.unload, name, executor=_CONTROL)
    return JSONResponse({"name": name})


async def _check_control(service: Service, request: Request) -> None:
    asked = await _object(service, request)
    calls.check_keys(asked, ("parameters",), "A request to load or unload")
    if asked.get("parameters"):
        raise Refusal(400, "A model is loaded as its directory has it. Received: "
                      "parameters")
    if not service.settings.control:
        raise Refusal(403, "Models are loaded and unloaded by whoever started the "
                      f"service (--control). Received: {request.url.path[:200]}",
                      "forbidden")


async def _object(service: Service, request: Request) -> dict[str, Any]:
    """The JSON object of a body that may be left out."""
    body = await bodies.read(request.receive, service.settings.max_body_bytes,
                             service.settings.body_s)
    return calls.read_object(body) if body.strip() else {}


async def _metrics(service: Service, _: Request) -> Response:
    return Response(await _in_thread(service.metrics), media_type=CONTENT_TYPE)


async def _openapi(service: Service, _: Request) -> Response:
    return JSONResponse(openapi.description(service.settings))


async def _docs(service: Service, _: Request) -> Response:
    return HTMLResponse(openapi.page(service.settings), headers=page.HEADERS)


async def _page(_: Service, __: Request) -> Response:
    return HTMLResponse(page.text(), headers=page.HEADERS)


async def _in_thread(function: Callable, *arguments: Any,
                     executor: Executor | None = None) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, function,
                                                            *arguments)
