r"""Serves a bundle, a ladder, or a folder of them over HTTP; needs no TensorFlow.

    tfopt serve runs/mine
    curl -d '{"texts": ["where is it?"]}' 127.0.0.1:8000/predict

Speaks the Open Inference Protocol, version 2, beside. At / is a page to try, at /docs
what the paths take. SIGTERM ends the service once all that it took in is answered.
Needs the extra `serve` (starlette, uvicorn, httptools, prometheus-client).
"""

from __future__ import annotations

import math
import signal
import socket

from absl import flags, logging

from tfopt.serve.settings import Settings

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
FIRST = ("dir",)
_BACKLOG = 2048
_KEEP_ALIVE_S = 30
_END_S = 10.0  # beyond deadline and body, for a client that does not read its answer


def settings() -> Settings:
    """What the flags say.

    Raises:
        ValueError: a value is out of its range.
    """
    return Settings(
        directory=FLAGS.dir, name=FLAGS.name, threads=FLAGS.threads,
        deadline_ms=FLAGS.deadline_ms, queue=FLAGS.queue, cascade=FLAGS.cascade,
        control=FLAGS.control,
        max_body_bytes=FLAGS.max_body_bytes, max_letters=FLAGS.max_letters,
        body_s=FLAGS.body_seconds,
        watch_s=FLAGS.watch_seconds if FLAGS.watch else None,
        shadow=FLAGS.shadow, shadow_fraction=FLAGS.shadow_fraction,
        keep_uncertain=FLAGS.keep_uncertain, keep_most=FLAGS.keep_most,
        request_log=FLAGS.request_log, log_texts=FLAGS.log_texts)


def main() -> None:
    """Serves until it is told to end.

    Raises:
        ValueError: the directory holds no bundle, the port is in use, or the extra
            `serve` is not installed.
    """
    try:
        import uvicorn

        from tfopt.serve.app import App
    except ImportError as error:
        raise ValueError("tfopt serve needs the extra `serve`: pip install '.[serve]', "
                         f"or './light[serve]'. Received: {error}") from error
    app = App(settings())
    with _bound(FLAGS.host, FLAGS.port) as bound:
        app.service.start()
        bound.listen(_BACKLOG)  # from the line below on, nobody is turned away
        host, port = bound.getsockname()[:2]
        logging.info("Serving %s on http://%s:%d", FLAGS.dir, host, port)
        # uvicorn raises the signal that ended it once more, behind its own handlers.
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvicorn.Server(uvicorn.Config(
            app, access_log=False, log_config=None, proxy_headers=False,
            server_header=False, lifespan="on", ws="none", backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=math.ceil(
                _END_S + max(FLAGS.deadline_ms / 1e3, FLAGS.body_seconds)))
        ).run([bound])
    logging.info("All that was taken in is answered")


def _bound(host: str, port: int) -> socket.socket:
    """A socket of an address, before the models are opened: it may be in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:  # of a name that is none
        said = getattr(error, "strerror", None) or error
        raise ValueError("--host and --port must be free to listen on. Received: "
                         f"--host={host} --port={port}: {said}") from error
    return bound


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("dir", None, "A bundle, a ladder, or a folder of them.",
                        required=True)
    flags.DEFINE_string("name", None, "Of the model, where --dir is a bundle or a "
                        "ladder. Left out: the directory's.")
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    flags.DEFINE_integer("port", 8000, "Port to listen on; 0 for any that is free.",
                         lower_bound=0, upper_bound=65535)
    flags.DEFINE_integer("threads", None, "Worker threads, each with an interpreter of "
                         "every variant. Left out: one a core.", lower_bound=1)
    flags.DEFINE_float("deadline_ms", 1000.0, "Of requests that name none: a variant "
                       "is chosen by it, and what cannot be answered by then is "
                       "refused.")
    flags.DEFINE_integer("queue", 1024, "Texts that may wait.", lower_bound=1)
    flags.DEFINE_bool("cascade", False, "A faster variant answers first, and hands on "
                      "what it is not sure of, by the ladder's threshold.")
    flags.DEFINE_bool("control", True, "Whether clients may load and unload models.")
    flags.DEFINE_integer("max_body_bytes", 1 << 20, "Of a request.", lower_bound=1)
    flags.DEFINE_integer("max_letters", 50_000, "Of a text.", lower_bound=1)
    flags.DEFINE_float("body_seconds", 10.0, "In which a request's body must be there.")
    flags.DEFINE_bool("watch", False, "Load what is put into the directory.")
    flags.DEFINE_float("watch_seconds", 2.0, "Between looks.")
    flags.DEFINE_string("shadow", None, "A bundle, of the float model say, that "
                        "answers a sample of the texts too; /metrics says how often "
                        "both agree.")
    flags.DEFINE_float("shadow_fraction", 0.01, "Of the texts that the shadow gets.")
    flags.DEFINE_string("keep_uncertain", None, "File (.jsonl) for the texts that the "
                        "model was least sure of, to distil on.")
    flags.DEFINE_integer("keep_most", 1000, "Texts in that file.", lower_bound=1)
    flags.DEFINE_string("request_log", None, "File to which a line of JSON is added "
                        "for each text, without the text.")
    flags.DEFINE_bool("log_texts", False, "Texts are in the request log, too.")
