"""The flags that the scripts share, and how their mains end.

Exit status: 0 done; 1 a user's mistake, in one sentence on stderr; 2 a budget or a
target that was not met; 130 interrupted.
"""

from __future__ import annotations

import json
import logging as std_logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from tfopt import report, tasks
from tfopt.files import write_whole

FLAGS = flags.FLAGS
# How often this process was started anew, since another worker was lost.
_REJOINED, _MOST_REJOINS = "TFOPT_REJOINED", 20
# The flags below count as those of the script that asks for them: its --help lists
# them, and `run_dir` tells them from the flags of other libraries.
flags.disclaim_key_flags()


def define_model() -> None:
    """Which checkpoint."""
    flags.DEFINE_string(
        "model_dir", "minilm",
        "Checkpoint: a directory (Hugging Face with model.safetensors, Google's TF "
        "checkpoint, or tfopt's own), 'minilm' for the packaged one, or "
        "'random:bert_base' for a shape with random weights.")


def define_data() -> None:
    """Which files, which columns."""
    from tfopt.export import calibrate  # brings LiteRT, which not all scripts need

    flags.DEFINE_string(
        "train_file", None, "Labelled examples to learn from: .tsv, .csv or .jsonl. "
        "Left out: the embedded support intents, train and dev.")
    flags.DEFINE_string("dev_file", None, "Labelled examples to report on. Left out: "
                        "a tenth of the train file.")
    define_task()
    flags.DEFINE_string("test_file", None, "More labelled examples to report on.")
    flags.DEFINE_enum(
        "keep_epoch", "best", ["best", "last"], "Keep the weights of the epoch with "
        "the best value on dev (or on the held-out part) of the metric that the task "
        "goes by, such as accuracy, or of the last one.")
    flags.DEFINE_float(
        "holdout_fraction", 0.0, "Part of the train file that is held out to choose "
        "the best epoch, so that --dev_file has no part in the choice. 0: dev chooses.",
        lower_bound=0.0, upper_bound=0.5)
    flags.DEFINE_integer("calibration_texts", 300, "Texts of the train file by which "
                         "exports with static ranges are calibrated.", lower_bound=0)
    flags.DEFINE_enum("ranges", "min_max", calibrate.METHODS,
                      "How ranges are taken from them: all; all but the outermost "
                      "0.01 %; those that lose least in mean square.")
    define_columns()


def define_task() -> None:
    """What is learned from the texts."""
    flags.DEFINE_enum("task", "classification", sorted(tasks.all_tasks()),
                      "What is learned from the texts.")


def define_columns() -> None:
    """Which columns, and how long a text may be."""
    flags.DEFINE_string("text_column", "text", "Column (or JSON key) of the text.")
    flags.DEFINE_string("text_pair_column", None, "Column of the second text, if any.")
    flags.DEFINE_string("label_column", "label", "Column of the label.")
    flags.DEFINE_integer("max_length", 128, "Tokens to which texts are cut.",
                         lower_bound=4)


def define_training(out_dir: bool = True) -> None:
    """How to train, and where the results go."""
    if out_dir:
        flags.DEFINE_string("out_dir", None, "Directory for all results. A run that "
                            "was killed goes on with the same command.", required=True)
    flags.DEFINE_integer("epochs", 3, "Passes over the train file.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Examples a step.", lower_bound=1)
    flags.DEFINE_integer("sort_window", 64, "Batches whose texts are sorted by length "
                         "together: more save padding, fewer mix the lengths of a "
                         "batch.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 1e-4, "Peak learning rate.", lower_bound=1e-12)
    flags.DEFINE_float("weight_decay", 0.01, "Decoupled weight decay.", lower_bound=0.0)
    flags.DEFINE_float("clip_norm", 1.0, "Largest norm of a step's whole gradient; 0 "
                       "does not clip.", lower_bound=0.0)
    flags.DEFINE_integer("patience", None, "Epochs without a better one on dev after "
                         "which training stops.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of fresh weights, batch order and dropout.",
                         lower_bound=0)
    define_devices()
    flags.DEFINE_integer("pad_multiple", None, "Pad batches to a multiple of so many "
                         "tokens. Left out: 8, and 32 where XLA compiles each length.",
                         lower_bound=1)
    flags.DEFINE_bool("pad_to_max_length", False, "Pad every batch to --max_length; a "
                      "TPU, which wants fixed shapes, has them so in any case.")


def define_devices() -> None:
    """Where training runs, and by what arithmetic."""
    flags.DEFINE_enum("strategy", "auto", [
        "auto", "one_device", "mirrored", "multi_worker", "tpu", "parameter_server"],
        "tf.distribute strategy; auto follows TF_CONFIG, else a TPU of the "
        "environment, else mirrors over several GPUs (docs/distributed.md).")
    flags.DEFINE_string("tpu", None, "TPU: a Cloud TPU's name or address, or 'local', "
                        "as in Colab. Left out: what the environment says.")
    flags.DEFINE_integer("gpus", None, "GPUs to mirror over. Left out: all.",
                         lower_bound=1)
    flags.DEFINE_bool("batch_per_replica", False, "Count --batch_size for each "
                      "replica, not for all of them together.")
    flags.DEFINE_enum("rate_rule", "none", ["none", "linear", "sqrt"], "How "
                      "--learning_rate grows with the replicas, where the batch does "
                      "(--batch_per_replica).")
    flags.DEFINE_float("wait_s", 300.0, "Seconds for other workers, or a TPU, to "
                       "answer.", lower_bound=0.0)
    flags.DEFINE_enum("mixed_precision", "auto", ["auto", "float32", "mixed_bfloat16"],
                      "Arithmetic of training; weights stay float32. auto: bfloat16 "
                      "where a GPU or TPU has it.")
    flags.DEFINE_bool("jit_compile", None, "Compile the training step by XLA, anew "
                      "for each length of batches (--pad_multiple). Left out: on "
                      "accelerators.")
    flags.DEFINE_integer("steps_per_execution", None, "Steps of a call, at most. Left "
                         "out: 50 on accelerators, else 1.", lower_bound=1)


def placement():
    """Where the flags say that training runs; the same at each call.

    Raises:
        ValueError: as `tfopt.strategy`.
    """
    from tfopt.train.distribute import (
        strategy,
    )  # brings TensorFlow, which not all scripts need

    return strategy.strategy(
        FLAGS.strategy, tpu=FLAGS.tpu, gpus=FLAGS.gpus, wait_s=FLAGS.wait_s,
        per_replica=FLAGS.batch_per_replica, rate_rule=FLAGS.rate_rule)


def define_sparse_core() -> None:
    """Whether a TPU's SparseCore looks tokens up."""
    flags.DEFINE_bool("sparse_core", False, "Report the quality of the fine-tuned "
                      "model with its tokens looked up by the SparseCore of this "
                      "machine's TPU (v5p, v6e), too; an error elsewhere. It speeds up "
                      "lookups, not pruned weights.")


def define_distillation() -> None:
    """Whether, and what, to learn from a teacher."""
    flags.DEFINE_string("teacher_dir", None, "Fine-tuned model to learn from, as "
                        "finetune.py leaves it. Left out, where another flag asks for "
                        "a teacher: the baseline.")
    flags.DEFINE_float("distil_temperature", None, "By which logits are divided (2).")
    for name, what in {
        "soft": "the teacher's logits (1 where there is a teacher)",
        "hard": "the labels, beside a teacher (0.5)",
        "hidden": "the teacher's hidden states (0)",
        "relations": "how the teacher relates tokens in its last layer (0)",
    }.items():
        flags.DEFINE_float(f"distil_{name}_weight", None,
                           f"Weight in the loss of {what}.")
    flags.DEFINE_enum("distil_layers", None, ["even", "nearest"],
                      "Which layers' hidden states follow one another: at even steps "
                      "(so if left out), or for each of the teacher's the student's "
                      "nearest.")
    flags.DEFINE_bool("cache_teacher_logits", False, "Run the teacher once over all "
                      "texts, not in every step; for logits alone.")
    flags.DEFINE_string("unlabelled_file", None, "More texts, which the teacher alone "
                        "judges: .txt, one a line, or .tsv, .csv, .jsonl with the "
                        "columns of texts.")
    flags.DEFINE_integer("augment", 0, "Changed copies of each text of the train file, "
                         "which the teacher alone judges.", lower_bound=0)


def define_measuring() -> None:
    """How to time."""
    flags.DEFINE_integer("num_threads", 2, "Most threads of a request, when timing: a "
                         ".tflite is timed with fewer, too, and the fastest counts.",
                         lower_bound=1)
    flags.DEFINE_bool("smoke", False, "A few examples, steps and timings only: shows "
                      "that everything runs; its figures mean nothing.")


def command() -> str:
    """The command line of this process, for the report."""
    return shlex.join(["python", *sys.argv])


def write_figures(path: str, figures: dict) -> None:
    """Writes an experiment's figures with their environment, as JSON."""
    here = report.environment(command=command())
    write_whole(path, json.dumps({"environment": here, "figures": figures}, indent=1)
                + "\n")


def reported_figures(path: str) -> dict | None:
    """The figures that a killed run of this very command has written; else None."""
    file = Path(path)
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    same = found.get("environment", {}).get("command") == command()
    return found["figures"] if same else None


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
            place = error.filename or getattr(FLAGS, "out_dir", None) or command()
            message = f"{error.strerror or error}. Received: {place}"
        except _lost_worker_errors() as error:
            _join_again(error)
        except _tensorflow_file_errors() as error:
            said = error.message.splitlines()[0].rpartition("}} ")[2]  # node, message
            message = f"TensorFlow cannot write, or lacks memory. Received: {said}"
        logging.debug("The mistake, in full", exc_info=True)
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
        return 1

    return guarded


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
    said = " ".join(str(error.message).split())[-200:]
    if times >= _MOST_REJOINS:
        raise ValueError("Workers must stay, or come back; started again "
                         f"{times} times, the others failed as before. Received: {said}"
                         ) from error
    logging.warning("A worker is lost; this one starts again and waits for it, then "
                    "both go on from the last saved state: %s", said)
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[_REJOINED] = str(times + 1)
    os.execv(sys.executable, [sys.executable, *sys.argv])


def _tensorflow_file_errors() -> tuple[type[Exception], ...]:
    """What TensorFlow raises instead of OSError; nothing where it is not in use."""
    if "tfopt.backend" not in sys.modules:
        return ()
    errors = sys.modules["tfopt.backend"].tf.errors
    return (errors.OutOfRangeError, errors.PermissionDeniedError,
            errors.ResourceExhaustedError)


def _tell_import_error(kind, error, trace) -> None:
    """Tells in one sentence, too, what hinders the imports of a script."""
    if not issubclass(kind, ImportError):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)


# Here, since imports run before `run`: TensorFlow may be missing, or hold Keras 3.
sys.excepthook = _tell_import_error


def _quieten_libraries() -> None:
    """Shows the progress of tfopt and of the scripts, and others' warnings only."""
    ours = tuple(str(Path(__file__).resolve().parents[1] / name) for name in
                 ("tfopt", "experiments"))
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno > std_logging.INFO
        # Of the script itself it is the path as it was given: relative, or by a link.
        or os.path.realpath(record.pathname).startswith(ours))
    std_logging.getLogger("tensorflow").addFilter(
        lambda record: record.levelno > std_logging.INFO)
