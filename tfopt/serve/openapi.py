"""What the service's paths take and give, as OpenAPI 3.1, and as a page to read.

The page asks nobody else for anything, which Swagger's or Redoc's would.
"""

from __future__ import annotations

import html
from typing import Any

from tfopt.files import to_json
from tfopt.serve.settings import Settings

_TEXT = "where is my parcel?"
_PREDICT = {"texts": [_TEXT]}
_INFER = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES",
                      "data": [_TEXT]}], "parameters": {"deadline_ms": 50}}
_ANSWERED = {
    "answers": [{"label": "track_order", "score": 0.98,
                 "scores": {"track_order": 0.98}, "variant": "1x"}],
    "model": "demo", "milliseconds": 1.9}
_MODEL, _VERSION = "/v2/models/{model}", "/versions/{version}"
_REPOSITORY = "/v2/repository/models/{model}"
_REFUSED = {
    400: "a field is not as it should be", 403: "clients may not load and unload",
    404: "no such model, version or variant", 405: "the path has another method",
    408: "the body does not end in time", 413: "too many bytes, letters or texts",
    503: "it cannot be answered in time; Retry-After says when to ask again"}
_OF_ANSWERS = (400, 404, 405, 408, 413, 503)
_OF_CHANGES = (400, 403, 404, 405, 408, 413)

# Path -> method -> (what it does, an example of its body or None, statuses).
_PATHS: dict[str, dict[str, tuple[str, dict | None, tuple[int, ...]]]] = {
    "/predict": {"post": ("Answers texts, or pairs of texts.", _PREDICT, _OF_ANSWERS)},
    f"{_MODEL}/infer": {"post": ("Answers tensors of texts or ids (V2).", _INFER,
                                 _OF_ANSWERS)},
    f"{_MODEL}{_VERSION}/infer": {"post": ("The same, of a version.", _INFER,
                                           _OF_ANSWERS)},
    "/v2": {"get": ("Which server this is.", None, ())},
    "/v2/health/live": {"get": ("Whether the process runs.", None, ())},
    "/v2/health/ready": {"get": ("Whether a model is in service.", None, (503,))},
    _MODEL: {"get": ("What a model reads and gives, and its variants.", None, (404,))},
    f"{_MODEL}{_VERSION}": {"get": ("The same, of a version.", None, (404,))},
    f"{_MODEL}/ready": {"get": ("Whether a model is in service.", None, (404,))},
    f"{_MODEL}{_VERSION}/ready": {"get": ("The same, of a version.", None, (404,))},
    "/v2/repository/index": {
        "get": ("The models in the served directory.", None, ()),
        "post": ("The same; `ready` alone if wanted.", {"ready": True}, (400, 408,
                                                                         413))},
    f"{_REPOSITORY}/load": {"post": (
        "Loads a model, or its newer version; requests that run keep theirs.", {},
        _OF_CHANGES)},
    f"{_REPOSITORY}/unload": {"post": (
        "Takes a model out of service; requests that run keep it.", {}, _OF_CHANGES)},
    "/metrics": {"get": ("Figures for Prometheus.", None, ())},
    "/": {"get": ("A page to try a text on.", None, ())},
    "/docs": {"get": ("This page.", None, ())},
    "/openapi.json": {"get": ("This page for programs.", None, ())},
}


def description(settings: Settings) -> dict[str, Any]:
    """The document.

    Args:
        settings: whose limits it names.
    """
    from tfopt import __version__

    return {
        "openapi": "3.1.0",
        "info": {"title": "tfopt", "version": __version__, "description": (
            "Answers texts by compressed encoders. The Open Inference Protocol, "
            f"version 2, and a plain form. A body may have {settings.max_body_bytes:,} "
            f"bytes, a text {settings.max_letters:,} letters, a request "
            f"{settings.queue:,} texts.")},
        "paths": {path: {method: _operation(path, *about)
                         for method, about in methods.items()}
                  for path, methods in _PATHS.items()},
        "components": {"schemas": {
            "Error": {"type": "object", "required": ["error"],
                      "properties": {"error": {"type": "string"}}}}}}


def _operation(path: str, about: str, example: dict | None, statuses: tuple[int, ...]
               ) -> dict[str, Any]:
    names = [name for name in ("model", "version") if f"{{{name}}}" in path]
    found: dict[str, Any] = {
        "summary": about,
        "parameters": [{"name": name, "in": "path", "required": True,
                        "schema": {"type": "string"}} for name in names],
        "responses": {"200": {"description": "done"}, **{
            str(status): {"description": _REFUSED[status], "content": {
                "application/json": {"schema": {
                    "$ref": "#/components/schemas/Error"}}}} for status in statuses}}}
    if path == "/predict":
        found["responses"]["200"]["content"] = {
            "application/json": {"example": _ANSWERED}}
    if example is not None:
        found["requestBody"] = {"required": bool(example), "content": {
            "application/json": {"schema": {"type": "object"}, "example": example}}}
    return found


def page(settings: Settings) -> str:
    """The document as HTML."""
    rows = []
    for path, methods in _PATHS.items():
        for method, (about, example, statuses) in methods.items():
            shown = "" if not example else (
                f"<pre>curl -d '{html.escape(to_json(example))}' "
                f"$SERVICE{html.escape(path)}</pre>")
            refused = "".join(f"<br><small>{status}: {html.escape(_REFUSED[status])}"
                              "</small>" for status in statuses)
            rows.append(f"<h3><code>{method.upper()} {html.escape(path)}</code></h3>"
                        f"<p>{html.escape(about)}{refused}</p>{shown}")
    about = html.escape(description(settings)["info"]["description"])
    return ("<!doctype html><html lang=en><meta charset=utf-8><title>tfopt: paths"
            "</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;"
            "margin:3rem auto;padding:0 1rem}pre{background:#eee;padding:.5rem;"
            "overflow-x:auto}</style><h1>tfopt</h1>"
            f"<p>{about} <a href=openapi.json>As OpenAPI</a>.</p>{''.join(rows)}"
            "</html>")
