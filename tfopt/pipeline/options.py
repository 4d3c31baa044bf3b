"""What a run can be told: files, data, batches, devices, targets.

Each record is checked when it is made. Imports no TensorFlow but within methods.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tfopt.pipeline.option import Options, option
from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt.train import Settings
    from tfopt.train.distribute.strategy import Placement

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu",
              "parameter_server")
DEFAULT_LENGTH = 128
SMOKE_EXAMPLES = {"train": 64, "dev": 32, "test": 32}


def _tasks() -> list[str]:
    from tfopt import tasks

    return sorted(tasks.all_tasks())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(Options):
    """Which checkpoint learns from which files."""

    model: PathLike = option(
        "minilm", "Checkpoint: a directory (Hugging Face with model.safetensors, "
        "Google's TF checkpoint, or tfopt's own), org/name[@revision] of the Hugging "
        "Face hub, 'minilm' for the packaged one, or 'random:bert_base' for a shape "
        "with random weights.", flag="model_dir")
    task: str = option("classification", "What is learned from the texts.",
                       choices=_tasks)
    train: PathLike | None = option(
        None, "Labelled examples to learn from: .tsv, .csv or .jsonl; of words with "
        "tags .conll or .jsonl. Left out: the embedded support intents, train and dev.",
        flag="train_file")
    dev: PathLike | None = option(
        None, "Labelled examples to report on. Left out: a tenth of the train file.",
        flag="dev_file")
    test: PathLike | None = option(None, "More labelled examples to report on.",
                                   flag="test_file")

    @property
    def start(self) -> PathLike:
        """The checkpoint whose own files say how texts become its outputs."""
        return self.model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Options):
    """How files are read, and which epoch is kept."""

    text_column: str = option("text", "Column (or JSON key) of the text.")
    text_pair_column: str | None = option(None, "Column of the second text, if any.")
    label_column: str = option("label", "Column of the label.")
    label_separator: str = option(
        ";", "What stands between several labels of a text in .tsv and .csv files "
        "(multi_label); .jsonl files have lists.")
    max_length: int | None = option(
        None, "Tokens to which texts are cut. Left out: as the baseline's were, or as "
        f"a checkpoint of sentence vectors says, or {DEFAULT_LENGTH}.", at_least=4)
    keep_epoch: str = option(
        "best", "Keep the weights of the epoch with the best accuracy (or other metric "
        "of the task) on dev (or on the held-out part), or of the last one.",
        choices=("best", "last"))
    holdout_fraction: float = option(
        0.0, "Part of the train file that is held out to choose the best epoch, so "
        "that --dev_file has no part in the choice. 0: dev chooses.",
        at_least=0.0, at_most=0.5)

    @property
    def tokens(self) -> int:
        """Tokens to which texts are cut."""
        return DEFAULT_LENGTH if self.max_length is None else self.max_length

    def columns(self, form: str = "word") -> Any:
        """The columns of the files (`data.Columns`), and the form of their labels."""
        from tfopt import data

        return data.Columns(
            text=self.text_column, pair=self.text_pair_column, label=self.label_column,
            form=form, separator=self.label_separator)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching(Options):
    """How examples are put together into batches."""

    batch_size: int = option(32, "Examples a step.", at_least=1)
    sort_window: int = option(
        64, "Batches whose texts are sorted by length together: more save padding, "
        "fewer mix the lengths of a batch.", at_least=1)
    pad_multiple: int | None = option(
        None, "Pad batches to a multiple of this many tokens. Left out: 8, and 32 "
        "where XLA compiles each length.", at_least=1)
    pad_to_max_length: bool = option(
        False, "Pad every batch to --max_length; a TPU, which wants fixed shapes, has "
        "them so in any case.")

    def multiple(self, settings: Settings) -> int:
        """Of tokens, to which batches are padded; few lengths where XLA compiles."""
        compiled = settings.on_this_machine().jit_compile
        return self.pad_multiple or (32 if compiled else 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices(Options):
    """Where training runs."""

    strategy: str = option(
        "auto", "tf.distribute strategy; auto follows TF_CONFIG, else a TPU of the "
        "environment, else mirrors over several GPUs (docs/distributed.md).",
        choices=STRATEGIES)
    tpu: str | None = option(
        None, "TPU: a Cloud TPU's name or address, or 'local', as in Colab. Left out: "
        "what the environment says.")
    gpus: int | None = option(None, "GPUs to mirror over. Left out: all.", at_least=1)
    batch_per_replica: bool = option(
        False, "Count --batch_size for each replica, not for all of them together.")
    rate_rule: str = option(
        "none", "How --learning_rate grows with the replicas, where the batch does "
        "(--batch_per_replica).", choices=("none", "linear", "sqrt"))
    wait_s: float = option(300.0, "Seconds for other workers, or a TPU, to answer.",
                           at_least=0.0)

    def placement(self) -> Placement:
        """Where training runs; the same at each call.

        Raises:
            ValueError: as `tfopt.strategy`.
        """
        from tfopt.train.distribute import strategy

        return strategy.strategy(
            self.strategy, tpu=self.tpu, gpus=self.gpus, wait_s=self.wait_s,
            per_replica=self.batch_per_replica, rate_rule=self.rate_rule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets(Options):
    """What must be reached, of speed and of the task's metric."""

    target_speedup: float | None = option(
        None, "How many times faster than the int8 file of the unpruned model; in "
        "place of the target of the recipe's pass structured.", at_least=1.0)
    target_latency_ms: float | None = option(
        None, "The same in milliseconds of a request at its natural length.",
        at_least=0.0)
    max_accuracy_drop: float | None = option(
        None, "Points (or the unit) of the task's metric, such as accuracy, that a "
        "quantized export may lose against the same model in float; the most harmful "
        "operations stay in float until it holds. Judged on the part that "
        "--holdout_fraction holds out of train, or on dev.", at_least=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables(Options):
    """Which latency tables the search for a structure looks things up in."""

    latency_tables: tuple[str, ...] = option(
        (), "Files of the times that the search looks up, one for each number of "
        "threads that is tried: 1, 2, 4 ... --num_threads; timed first, in minutes "
        "each, if they are not there. Left out: files under ~/.cache/tfopt.")
    latency_tables_as_is: bool = option(
        False, "Takes the files of --latency_tables as they are, though they were "
        "timed on another machine: the one that will serve. The target is then that "
        "machine's.")
    retime: bool = option(
        False, "Times the latency tables anew, though they are there, such as those "
        "that were timed beside other work.")

    def __post_init__(self):
        """Checks the fields with one another.

        Raises:
            ValueError: tables of another machine are to be timed here.
        """
        super().__post_init__()
        if self.retime and self.latency_tables_as_is:
            raise ValueError("--retime is of tables of this machine. Received: "
                             "--retime, --latency_tables_as_is")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring(Options):
    """How artifacts are timed."""

    num_threads: int = option(
        2, "Most threads of a request, when timing: a .tflite is timed with fewer, "
        "too, and the fastest counts.", at_least=1)
    smoke: bool = option(
        False, "A few examples, steps and timings only: shows that everything runs; "
        "its figures mean nothing.")
    sparse_core: bool = option(
        False, "Report the accuracy of the fine-tuned model with its tokens looked up "
        "by the SparseCore of this machine's TPU (v5p, v6e), too; an error elsewhere. "
        "It speeds up lookups, not pruned weights.")
