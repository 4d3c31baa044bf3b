r"""A help desk: the model answers what it is sure of, a person gets the rest.

    python examples/support/desk.py --bundle=runs/demo    # http://127.0.0.1:8010

`make demo` makes runs/demo. The paths are those of `tfopt serve` and two more: `/`, a
page, and `/ask`, which is `/predict` with hand-over.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import uvicorn
from starlette.responses import HTMLResponse, JSONResponse

import tfopt
from tfopt.serve.app import App
from tfopt.serve.settings import Settings

PAGE = HTMLResponse(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def judge(bundle: tfopt.Bundle, path: str) -> tuple[np.ndarray, np.ndarray]:
    """How sure the model is of each labelled message <float>[N], and if it is right."""
    if bundle.task.name() != "classification":
        raise ValueError(f"--bundle must classify. Received: {bundle.task.name()}")
    corpus = tfopt.data.read(path)
    answers = bundle.predict(corpus.texts)
    return (np.array([answer["score"] for answer in answers]),
            np.array([answer["label"] for answer in answers]) == corpus.labels)


def threshold_for(quality: float, scores: np.ndarray, right: np.ndarray) -> float:
    """The least score from which `quality` of the answers are right; else infinity."""
    order = np.argsort(-scores)  # the surest first
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    enough = scores[order][last_of_equals & (share >= quality)]
    return math.floor(1e6 * enough[-1]) / 1e6 if len(enough) else math.inf


def table(quality: float, scores: np.ndarray, right: np.ndarray) -> str:
    """Coverage and accuracy on dev: by the threshold, by others, and held out."""
    half = np.arange(len(scores)) % 2  # each half is judged by the other's threshold
    others = np.array([threshold_for(quality, scores[half != own], right[half != own])
                       for own in (0, 1)])[half]
    chosen, lines = threshold_for(quality, scores, right), ["threshold answered  right"]
    for name, threshold in {**{f"{at}": at for at in (0.0, 0.5, 0.7, 0.9, 0.95)},
                            f"{chosen:.6f}": chosen, "held out": others}.items():
        given = scores >= threshold
        share = right[given].mean() if given.any() else math.nan
        lines.append(f"{name:9} {given.mean():8.1%}  {share:.3f}")
    return "\n".join(lines)


def hand_over(messages: list[dict], path: Path, most_bytes: int) -> None:
    """Adds a line of JSON for each message; all of them, or none and an error."""
    lines = "".join(json.dumps(message) + "\n" for message in messages).encode()
    # Opened anew each time, for who takes the messages renames the file.
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        if end + len(lines) > most_bytes:
            raise ValueError("Too many messages wait for a person. Received: "
                             f"{len(lines)} bytes beside {end} of {most_bytes}")
        if file.write(lines) < len(lines):
            file.truncate(end)
            raise OSError(f"The disk is full. Received: {path}")


def desk(service: App, threshold: float, queue: Path, most_bytes: int):
    """The ASGI application: the service's, with a page and hand-over."""
    async def application(scope, receive, send) -> None:
        asked = scope["type"] == "http" and (scope["method"], scope["path"])
        paths: dict = {("GET", "/"): PAGE, ("POST", "/ask"): ask}
        await paths.get(asked, service)(scope, receive, send)

    async def ask(scope, receive, send) -> None:
        body, given = [], []

        async def read():
            body.append((message := await receive()).get("body", b""))
            return message

        async def keep(message):
            given.append(message)

        # The service's own limits and deadline hold; what it refuses it says itself.
        await service({**scope, "path": "/predict"}, read, keep)
        if not given or given[0]["status"] != 200:
            for message in given:
                await send(message)
            return
        texts = json.loads(b"".join(body))["texts"]
        found, unsure = json.loads(given[1]["body"]), []
        for text, answer in zip(texts, found["answers"], strict=True):
            answer["handed_over"] = answer["score"] < threshold and bool(text.strip())
            if answer["handed_over"]:  # keys as of `tfopt serve --keep_uncertain`
                unsure.append({"text": text, "confidence": answer["score"],
                               "label": answer["label"], "time": time.time()})
        response = JSONResponse(found)
        try:
            if unsure:
                hand_over(unsure, queue, most_bytes)
        except (ValueError, OSError) as error:
            response = JSONResponse({"error": str(error)}, 503, {"retry-after": "60"})
        await response(scope, receive, send)

    return application


def main(arguments: list[str] | None = None) -> None:
    """Chooses the threshold, shows it, and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--bundle", required=True, help="directory of a classifier")
    add("--dev", default=tfopt.data.DEMO_DEV_FILE, help="messages with labels")
    add("--quality", type=float, default=0.97, help="share of answers to be right")
    add("--table", action="store_true", help="show the threshold, and end")
    add("--queue", type=Path, default="waiting.jsonl", help="messages for a person")
    add("--queue_bytes", type=int, default=1 << 20, help="that file's largest size")
    add("--keep_uncertain", help="as of tfopt serve")
    add("--port", type=int, default=8010)
    args = parser.parse_args(arguments)
    scores, right = judge(tfopt.Bundle.open(args.bundle), args.dev)
    print(table(args.quality, scores, right), flush=True)
    threshold = threshold_for(args.quality, scores, right)
    if threshold == math.inf:
        raise ValueError(f"--quality must be reached on dev. Received: {args.quality}")
    if args.table:
        return
    if args.queue.exists() and (waiting := args.queue.read_bytes()):
        tfopt.data.read_texts(args.queue)  # which names a line that is wrong
        if waiting[-1:] != b"\n":
            raise ValueError(f"--queue must end in a line. Received: {args.queue}")
    app = App(Settings(directory=args.bundle, max_body_bytes=1 << 16,
                       keep_uncertain=args.keep_uncertain))
    app.service.start()
    uvicorn.run(desk(app, threshold, args.queue, args.queue_bytes), port=args.port,
                limit_concurrency=100)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"desk.py: {error}")
