r"""How long the exports of pruned structures take, beside what the table predicts.

    python experiments/benchmarks/shrunk_latency.py --model_dir=DIR --dev_file=F \
        --tables=shrink.json --report=FILE.json

Source: `measure/latency_table.py`, whose predictions these are. Each structure of the
tables that shrink_table.py fills is built anew with random weights, equal ones once,
and timed with 1, 2, 4 ... and
--num_threads threads; the fastest counts, the others are in "p50_ms_by_threads". All of
a group take turns with the unpruned model, by whose time in the same rounds a speedup
is reckoned; each group is reported when it is done, and the same command after a kill
goes on with the next. Cost: some ten minutes a group for BERT-Base, most to export; and
the latency table, if it is not there. Expected: at most 10 % off.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import common
import numpy as np
from absl import flags, logging

from tfopt import data, drawing, model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import latency
from tfopt.measure.block_benchmark import Sizes
from tfopt.pipeline import costs
from tfopt.pipeline.options import Data, Tables

FLAGS = flags.FLAGS
UNPRUNED, PADDED = "unpruned", "keras_padded"
_PREDICTED = "dynamic_wi8_afp32"  # the export that the latency table is of
_REPEATS = 8  # of a turn, of texts of one length; the first of them is not counted

# Of an artifact, by the number of threads: <float>[rounds, N].
Seconds = dict[str, dict[int, np.ndarray]]
Names = dict[Sizes, list[tuple[str, str]]]  # structure -> (cell, seed) of each


def structures() -> Names:
    """The structures that the flags name.

    Raises:
        ValueError: a file is no such report, there is no structure, or two have one
            name.
    """
    found: Names = {}
    for path in filter(None, [*FLAGS.tables, FLAGS.structures]):
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            runs = fields["figures"]["runs"] if path in FLAGS.tables else {"": fields}
            for seed, cells in runs.items():
                for cell, figures in cells.items():
                    if {"num_heads", "intermediate_sizes"} <= set(figures):
                        sizes = Sizes(heads=tuple(figures["num_heads"]),
                                      neurons=tuple(figures["intermediate_sizes"]))
                        found.setdefault(sizes, []).append((cell, seed))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError("--tables and --structures must be JSON with structures. "
                             f"Received: {path}: {error!r}") from error
    if not found:
        raise ValueError("--tables or --structures must hold a structure. Received: "
                         f"--tables={FLAGS.tables}, --structures={FLAGS.structures}")
    names = [name_of(*cells[0]) for cells in found.values()]
    if len(set(names)) < len(names):
        raise ValueError("Two structures must not have one name, of cell and seed. "
                         f"Received: {sorted(names)}")
    return found


def name_of(cell: str, seed: str) -> str:
    """A structure's name in the report."""
    return f"{cell}, seed {seed}" if seed else cell


def texts(config: model.EncoderConfig) -> dict[str, list]:
    """What is asked in a turn: texts spread over the file, or of --tokens.

    Raises:
        ValueError: they are longer than the model's positions, or named twice.
    """
    if FLAGS.tokens and FLAGS.dev_file:
        raise ValueError("--tokens takes the place of --dev_file. Received: "
                         f"--tokens={FLAGS.tokens}, --dev_file={FLAGS.dev_file}")
    if FLAGS.tokens:
        random = np.random.default_rng(0)
        request = fixed(random.integers(config.vocab_size, size=FLAGS.tokens),
                        FLAGS.tokens)
    else:
        read = data.read_texts(FLAGS.dev_file or data.DEMO_DEV_FILE,
                               shared.read(Data).columns())
        rows = np.unique(np.linspace(0, len(read) - 1, FLAGS.texts).astype(int))
        encoded = data.tokenizer_from(model.directory(
            FLAGS.model_dir)).encode(read.texts, read.pairs,
                                     max_length=shared.read(Data).tokens)
        request = {"ids": [encoded.ids[row] for row in rows],
                   "first_lengths": [encoded.first_lengths[row] for row in rows]}
    longest = max([FLAGS.keras_padded or 0, *map(len, request["ids"])])
    if longest > config.max_positions:
        raise ValueError(f"Texts must fit the model's {config.max_positions} positions."
                         f" Received: {longest} tokens")
    return request


def fixed(ids: Sequence[int], tokens: int) -> dict[str, list]:
    """A request of texts with so many tokens each."""
    return {"ids": [np.resize(ids, tokens).tolist()] * (_REPEATS + 1),
            "first_lengths": [tokens] * (_REPEATS + 1)}


def time_group(config: model.EncoderConfig, group: Mapping[str, Sizes],
               request: Mapping, padded: Mapping | None
               ) -> tuple[Seconds, dict[str, int]]:
    """Exports structures, and times them in turn.

    Args:
        config: of the unpruned model.
        group: name -> sizes.
        request: asked of each file.
        padded: asked of the unpruned Keras model; None leaves it out.

    Returns:
        The seconds, of UNPRUNED and perhaps PADDED too; and the files' sizes in bytes.
    """
    with tempfile.TemporaryDirectory() as directory:
        files, sizes_of = {}, {UNPRUNED: Sizes.of(config), **group}
        for number, (name, sizes) in enumerate(sizes_of.items()):
            files[name] = Path(directory) / f"{number}.tflite"
            write_whole(files[name], tflite.convert(model.build(config.replace(
                num_heads=sizes.heads, intermediate_sizes=sizes.neurons)),
                FLAGS.scheme))
            logging.info("Exported %d of %d", number + 1, len(sizes_of))
        artifacts = dict(files)
        if padded:
            artifacts[PADDED] = Path(directory) / "keras"
            model.save(model.build(config), artifacts[PADDED])
        plan = {(name, count): latency.command(path, count)
                for name, path in artifacts.items()
                for count in latency.tried_threads(path, FLAGS.num_threads)}
        taken: dict[tuple[str, int], list] = {key: [] for key in plan}
        with common.Turns(plan, FLAGS.num_threads) as turns:
            for number in range(-1, 2 if FLAGS.smoke else FLAGS.rounds):
                answers = turns.round(number, lambda worker: worker.ask(**request),
                                      [key for key in plan if key[0] != PADDED])
                if padded:
                    answers |= turns.round(number, lambda worker: worker.ask(**padded),
                                           [key for key in plan if key[0] == PADDED])
                if number >= 0:  # round -1 warms up
                    for key, answer in answers.items():
                        same = key[0] == PADDED or FLAGS.tokens
                        taken[key].append(answer["seconds"][1 if same else 0:])
        seconds: Seconds = {}
        for (name, count), rounds in taken.items():
            seconds.setdefault(name, {})[count] = np.array(rounds)
        return seconds, {name: file.stat().st_size for name, file in files.items()}


def fastest(seconds: Mapping[int, np.ndarray]) -> np.ndarray:
    """Those of the number of threads with the least median."""
    return min(seconds.values(), key=np.median)


def figures_of(name: str, seconds: Seconds, file_bytes: int,
               predicted: Mapping[str, float]) -> dict:
    """The figures of a file, held against the unpruned one's of the same rounds."""
    own = fastest(seconds[name])
    p50_ms = common.spread(own)["p50_ms"]
    found = {"p50_ms": p50_ms, "file_bytes": file_bytes,
             "speedup": common.over(fastest(seconds[UNPRUNED]), own),
             "p50_ms_by_threads": {str(count): common.spread(taken)["p50_ms"]
                                   for count, taken in seconds[name].items()}}
    if predicted:
        found |= {"predicted_ms": predicted[name],
                  "predicted_speedup": predicted[UNPRUNED] / predicted[name],
                  "predicted_over_measured": predicted[name] / p50_ms}
    return found


def predict(config: model.EncoderConfig, structures: Mapping[str, Sizes],
            lengths: Sequence[int]) -> dict[str, float]:
    """What the table foretells: name -> ms; nothing where it is not asked for."""
    if not FLAGS.predict:
        return {}
    whole = costs.costs(
        lengths, num_threads=FLAGS.num_threads, tables=FLAGS.latency_tables,
        as_is=FLAGS.latency_tables_as_is)(config).whole
    return {name: whole(config.replace(num_heads=sizes.heads,
                                       intermediate_sizes=sizes.neurons))
            for name, sizes in {UNPRUNED: Sizes.of(config), **structures}.items()}


def measure(names: Names) -> dict:
    """Times what a killed run of the same command has left: the whole report."""
    config = model.config_of(model.load(FLAGS.model_dir))
    by_name = {name_of(*cells[0]): sizes for sizes, cells in names.items()}
    request = texts(config)
    lengths = list(map(len, request["ids"]))
    predicted = predict(config, by_name, lengths)
    figures = shared.reported_figures(FLAGS.report) or {
        "num_threads": FLAGS.num_threads, "mean_tokens": float(np.mean(lengths)),
        "structures": {}}
    left = [name for name in by_name if name not in figures["structures"]]
    for start in range(0, len(left), FLAGS.group):
        group = {name: by_name[name] for name in left[start:start + FLAGS.group]}
        padded = (fixed(request["ids"][0], FLAGS.keras_padded)
                  if FLAGS.keras_padded and PADDED not in figures else None)
        seconds, file_bytes = time_group(config, group, request, padded)
        own = {name: figures_of(name, seconds, count, predicted)
               for name, count in file_bytes.items()}
        unpruned = own.pop(UNPRUNED)
        figures.setdefault(UNPRUNED, unpruned)
        if padded:
            keras = fastest(seconds[PADDED])
            figures[PADDED] = {
                "tokens": FLAGS.keras_padded, **common.spread(keras),
                "over_unpruned": common.over(keras, fastest(seconds[UNPRUNED]))}
        for name, found in own.items():
            sizes = by_name[name]
            figures["structures"][name] = {
                "names": [name_of(*cell) for cell in names[sizes]],
                "num_heads": sizes.heads, "intermediate_sizes": sizes.neurons,
                **found, "unpruned_p50_ms": unpruned["p50_ms"]}
        shared.write_figures(FLAGS.report, figures)
        logging.info("Timed %d of %d structures", len(figures["structures"]),
                     len(by_name))
    return figures


def show(figures: Mapping) -> None:
    """Prints a line of each file."""
    for name, found in {UNPRUNED: figures[UNPRUNED], **figures["structures"]}.items():
        said = (f"{name:32} {found['p50_ms']:8.2f} ms {found['speedup']:6.2f}x "
                f"{found['file_bytes'] / 1e6:7.2f} MB")
        if "predicted_ms" in found:
            said += (f"; predicted {found['predicted_ms']:8.2f} ms "
                     f"{found['predicted_speedup']:6.2f}x")
        print(said)
    if PADDED in figures:
        keras = figures[PADDED]
        print(f"Keras float32, {keras['tokens']} tokens: {keras['p50_ms']:.2f} ms, "
              f"{keras['over_unpruned']:.2f} times the unpruned file's")
    print(f"Figures: {FLAGS.report}")


def main() -> None:
    """Times, reports and draws."""
    if FLAGS.predict and FLAGS.scheme != _PREDICTED:
        raise ValueError(f"Only {_PREDICTED} is predicted; give --nopredict. Received: "
                         f"--scheme={FLAGS.scheme}")
    if FLAGS.picture and not FLAGS.predict:
        raise ValueError("--picture is of predictions. Received: --nopredict")
    names = structures()
    figures = measure(names)
    show(figures)
    if FLAGS.picture:
        cells = {name_of(*own[0]): own[0][0] for own in names.values()}
        drawn = drawing.predictions([
            (cells.get(name, name), found["predicted_ms"], found["p50_ms"])
            for name, found in {UNPRUNED: figures[UNPRUNED],
                                **figures["structures"]}.items()])
        if drawn:
            write_whole(FLAGS.picture, drawn)


if __name__ == "__main__":
    shared.define_model()
    shared.define_columns()
    shared.define_measuring()
    shared.define(Tables)
    common.define_report()
    flags.DEFINE_list("tables", [], "Reports of shrink_table.py, whose structures are "
                      "timed; cells without one are left out.")
    flags.DEFINE_string("structures", None, 'More of them: JSON {name: {"num_heads": '
                        '[of each layer], "intermediate_sizes": [of each layer]}}.')
    flags.DEFINE_string("dev_file", None, "Texts to time, at their natural lengths. "
                        "Left out: the embedded support intents.")
    flags.DEFINE_integer("tokens", None, "Times texts of so many tokens instead, "
                         "without the changes of length that a prediction has in it.",
                         lower_bound=1)
    flags.DEFINE_integer("texts", 60, "Texts of a turn.", lower_bound=1)
    flags.DEFINE_integer("rounds", 15, "Turns of each file.", lower_bound=1)
    flags.DEFINE_integer("group", 16, "Structures that take turns, each a process.",
                         lower_bound=1)
    flags.DEFINE_enum("scheme", _PREDICTED, [
        scheme for scheme in tflite.SCHEMES if not tflite.needs_calibration(scheme)],
        f"The export; only {_PREDICTED} is predicted.")
    flags.DEFINE_bool("predict", True, "Whether the latency table is asked; of a large "
                      "model it is long in the making.")
    flags.DEFINE_integer(
        "keras_padded", None, "Times the unpruned Keras float32 model, too, each text "
        "padded to so many tokens. It is asked texts of that length: its attention "
        "mask hides nothing then, which takes as long.", lower_bound=1)
    flags.DEFINE_string("picture", None, "PNG of predicted against measured times.")
    shared.run(main)
