"""How the mains of commands and scripts end, and what they show meanwhile.

Exit status: 0 done; 1 a user's mistake, in one sentence on stderr; 2 a budget or a
target that was not met; 130 interrupted.
"""

from __future__ import annotations

import logging as std_logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from tfopt.types import is_unicode, shown

FLAGS = flags.FLAGS
# How often this process was started anew, since another worker was lost.
_REJOINED, _MOST_REJOINS = "TFOPT_REJOINED", 20
# sys.argv[0] of a command of the console begins so: "tfopt compress".
CONSOLE = "tfopt "
_LONGEST = 2000  # letters of a mistake


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags and runs main.

    Args:
        main: returns an exit status, or None for 0.
    """
    _quieten_libraries()
    app.run(guard(main))


def guard(main: Callable[[], int | None]) -> Callable[[Sequence[str]], int]:
    """Turns a user's mistake in main into one sentence on stderr.

    Args:
        main: returns an exit status, or None for 0.

    Returns:
        What gives the exit status, for the arguments that are no flags.
    """
    def guarded(arguments: Sequence[str]) -> int:
        try:
            for argument in sys.argv:
                if not is_unicode(argument):  # what is written would fail at its end
                    raise ValueError("Arguments must be valid UTF-8. Received: "
                                     f"{shown(argument)}")
            if len(arguments) > 1:
                raise ValueError("Arguments are given as --flag=value. Received: "
                                 f"{' '.join(arguments[1:])}")
            status = main() or 0
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # whoever read the output, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            print("Interrupted; the same command goes on from here.", file=sys.stderr)
            return 130
        except (ValueError, FloatingPointError, ImportError) as error:
            message = str(error)
        except OSError as error:
            # A write that fails, on a full disk, does not tell its file's name.
            place = (error.filename or getattr(FLAGS, "out_dir", None)
                     or " ".join(sys.argv))
            message = f"{error.strerror or error}. Received: {place}"
        except _lost_worker_errors() as error:
            _join_again(error)
        except _tensorflow_file_errors() as error:
            said = _message(error).splitlines()[0].rpartition("}} ")[2]  # node, message
            message = f"TensorFlow cannot write, or lacks memory. Received: {said}"
        logging.debug("The mistake, in full", exc_info=True)
        if len(message) > _LONGEST:
            message = f"{message[:_LONGEST]}... ({len(message):,} letters)"
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
        return 1

    return guarded


def _message(error: Exception) -> str:
    """What TensorFlow says of an error, without where in the graph it was."""
    return str(getattr(error, "message", error))


def _lost_worker_errors() -> tuple[type[Exception], ...]:
    """What TensorFlow raises where another worker is gone."""
    if not os.environ.get("TF_CONFIG") or "tfopt.backend" not in sys.modules:
        return ()
    errors = sys.modules["tfopt.backend"].tf.errors
    return (errors.UnavailableError, errors.AbortedError, errors.CancelledError,
            errors.DeadlineExceededError, errors.InternalError)


def _join_again(error: Exception) -> None:
    """Starts this process anew, to go on as soon as the lost worker is back.

    Raises:
        ValueError: that was done often already, so that it seems to be of no use.
    """
    times = int(os.environ.get(_REJOINED, 0))
    said = " ".join(_message(error).split())[-200:]
    if times >= _MOST_REJOINS:
        raise ValueError("Workers must stay, or come back; started again "
                         f"{times} times, the others failed as before. Received: {said}"
                         ) from error
    logging.warning("A worker is lost; this one starts again and waits for it, then "
                    "both go on from the last saved state: %s", said)
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[_REJOINED] = str(times + 1)
    program, *given = sys.argv
    if program.startswith(CONSOLE):
        given = ["tfopt.cli", program.removeprefix(CONSOLE), *given]
        program = "-m"
    os.execv(sys.executable, [sys.executable, program, *given])


def _tensorflow_file_errors() -> tuple[type[Exception], ...]:
    """What TensorFlow raises instead of OSError; nothing where it is not in use."""
    if "tfopt.backend" not in sys.modules:
        return ()
    errors = sys.modules["tfopt.backend"].tf.errors
    return (errors.OutOfRangeError, errors.PermissionDeniedError,
            errors.ResourceExhaustedError)


def _quieten_libraries() -> None:
    """Shows the progress of tfopt and of the scripts, and others' warnings only."""
    ours = tuple(str(Path(__file__).resolve().parents[2] / name) for name in
                 ("tfopt", "experiments"))
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno > std_logging.INFO
        # Of the script itself it is the path as it was given: relative, or by a link.
        or os.path.realpath(record.pathname).startswith(ours))
    std_logging.getLogger("tensorflow").addFilter(
        lambda record: record.levelno > std_logging.INFO)
