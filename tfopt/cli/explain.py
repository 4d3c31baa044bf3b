r"""Tells which words decided an answer, before and after compression.

    tfopt explain --model_dir=runs/mine/baseline --text="where is my parcel?"
    tfopt explain --model_dir=runs/mine/baseline --beside=runs/mine/keras \
        --text="where is my parcel?"
    tfopt explain --model_dir=runs/mine/baseline --scheme=dynamic_wi8_afp32 --text=...

Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) of the logit of the
model's answer: a line for each word, in units of the logit. --beside explains the same
logit of another Keras model, --scheme of the same model with the rounding of an export;
the last line is Spearman's correlation of the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from tfopt import data, markdown
from tfopt.cli import artifacts
from tfopt.files import check_place, to_json, write_whole
from tfopt.pipeline.options import DEFAULT_LENGTH

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
_BAR = 20  # letters of the largest value


def main() -> None:
    """Explains each text.

    Raises:
        ValueError: a model cannot be read or explained, or two are none to compare.
    """
    if FLAGS.report:
        check_place(FLAGS.report)
    if FLAGS.beside and FLAGS.scheme:
        raise ValueError("--beside and --scheme name another model each; one can be "
                         "compared at a time. Received: both")
    models, side = _models(), artifacts.text_side(Path(FLAGS.model_dir), None)
    found = [_explained(text, models, side) for text in FLAGS.text]
    for one in found:
        print(_shown(one))
    if FLAGS.report:
        write_whole(FLAGS.report, to_json(found, ensure_ascii=False, indent=1) + "\n")


def _models() -> dict:
    """Name -> (explainer, tokenizer), the first one first."""
    from tfopt import model
    from tfopt.pipeline import attributions

    keras_model = model.load(FLAGS.model_dir)
    models = {"model": (keras_model, FLAGS.model_dir)}
    if FLAGS.beside:
        models["beside"] = (model.load(FLAGS.beside), FLAGS.beside)
    if FLAGS.scheme:
        models[FLAGS.scheme] = (attributions.rounded(keras_model, FLAGS.scheme),
                                FLAGS.model_dir)
    made = {}
    for name, (one, place) in models.items():
        tokenizer = data.tokenizer_from(place)
        made[name] = attributions.Explainer(one, tokenizer.pad_id), tokenizer
    return made


def _explained(text: str, models: dict, side: artifacts.WholeTextSide) -> dict:
    """What is told of one text, as JSON."""
    from tfopt.pipeline import attributions

    labels = side.task.labels
    output = None if FLAGS.label is None else _number(FLAGS.label, labels)
    columns: dict[str, list[tuple[str, float]]] = {}
    gaps: dict[str, float] = {}
    for name, (explainer, tokenizer) in models.items():
        encoded = tokenizer.encode([text], max_length=side.max_length or DEFAULT_LENGTH,
                                   places=True)
        places = encoded.places[0]
        found = explainer.explain(encoded.ids[0], places, output=output)
        output, gaps[name] = found.output, found.gap
        columns[name] = attributions.by_word(found, places)
    first, *others = columns.values()
    told: dict[str, Any] = {
        "text": text, "words": [word for word, _ in first],
        "label": str(output) if output is None or not labels else labels[output],
        "attributions": {name: [value for _, value in words]
                         for name, words in columns.items()},
        "completeness_gap": gaps}
    if others:
        told["agreement"] = attributions.agreement(*(
            np.array([value for _, value in words]) for words in (first, *others)))
    return told


def _number(label: str, labels: tuple[str, ...]) -> int:
    if label not in labels:
        raise ValueError("--label must be one of the model's. Received: "
                         f"{label!r}, of {', '.join(labels[:12])}")
    return labels.index(label)


def _shown(told: dict) -> str:
    """A table of words, the values of each model, and bars of the first one's."""
    columns = told["attributions"]
    first = next(iter(columns.values()))
    most = max(map(abs, first), default=0.0) or 1.0
    rows = [[word, *(f"{values[i]:+.3f}" for values in columns.values()),
             ("+" if first[i] > 0 else "-") * round(_BAR * abs(first[i]) / most)]
            for i, word in enumerate(told["words"])]
    lines = [f"{told['label']}: {told['text']}", "",
             markdown.table(["word", *columns, ""], rows)]
    if "agreement" in told:
        lines.append(f"Agreement of the two (Spearman): {told['agreement']:.3f}")
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("model_dir", None, "A Keras model of a run, such as "
                        "runs/mine/baseline.", required=True)
    flags.DEFINE_multi_string("text", None, "A text; may be given several times.",
                              required=True)
    flags.DEFINE_string("beside", None, "Another Keras model, such as runs/mine/keras.")
    flags.DEFINE_string("scheme", None, "The same model with the rounding of an "
                        "export that needs no ranges, such as dynamic_wi8_afp32.")
    flags.DEFINE_string("label", None, "The label whose logit is explained. Left out: "
                        "the answer's.")
    flags.DEFINE_string("report", None, "JSON file for all of it.")
