"""Fine-tuning and passes that learn from a teacher, by flags."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from scripts import figures, run

from tfopt import compress, model
from tfopt.train import Distillation


def test_a_pass_distils_from_the_baseline_with_texts_of_no_label(
        files, finetuned, tmp_path):
    more = tmp_path / "more.txt"
    more.write_text("a good one\nnot it\n")
    out = tmp_path / "out"
    done = run("compress", *files.flags, "--smoke", "--recipe=magnitude_50",
               f"--baseline_dir={finetuned.out}", f"--out_dir={out}",
               "--distil_soft_weight=1", "--cache_teacher_logits", "--augment=2",
               f"--unlabelled_file={more}", timed=False)
    # 48 labelled ones, 2 of the file, 2 copies of 48.
    assert "The teacher reads 146 examples, once" in done.stderr
    said = (out / "report.md").read_text()
    assert "2 texts without labels" in said
    assert "96 changed copies" in said
    # Repeats the run, the flags left out.
    assert compress.Recipe.load(out / "recipe.json").distillation == Distillation()
    assert ("dynamic_wi8_afp32", "accuracy", "dev") in figures(out / "report.json")


def test_finetuning_learns_from_a_teachers_states(files, finetuned, tmp_path):
    out = tmp_path / "out"
    flags = [*files.flags, "--smoke", f"--out_dir={out}", "--distil_hidden_weight=1",
             "--distil_layers=nearest"]
    refused = run("finetune", *flags, status=1)
    assert "--teacher_dir must name the teacher" in refused.stderr
    run("finetune", *flags, f"--teacher_dir={finetuned.out}")
    taught = model.load(out).get_weights()
    plain = model.load(finetuned.out).get_weights()
    assert any(np.any(a != b) for a, b in zip(taught, plain, strict=True))


def test_a_teacher_of_another_vocabulary_and_order_of_labels_teaches_by_logits(
        files, finetuned, tmp_path):
    other = shutil.copytree(finetuned.out, tmp_path / "other")
    words = (other / "vocab.txt").read_text().split("\n")
    (other / "tokenizer.json").unlink()  # else it counts, not the vocabulary
    (other / "vocab.txt").write_text("\n".join([*words[:-3], *words[-3:-1][::-1], ""]))
    fields = json.loads((other / "task.json").read_text())
    fields["labels"].reverse()
    (other / "task.json").write_text(json.dumps(fields))
    kept = tmp_path / "kept"
    flags = [*files.flags, "--smoke", f"--teacher_dir={other}", "--augment=1",
             f"--teacher_logits_dir={kept}"]
    done = run("finetune", *flags, f"--out_dir={tmp_path / 'a'}")
    assert "The teacher reads by its own tokenizer" in done.stderr
    assert "The teacher's labels are in another order" in done.stderr
    assert "The teacher reads 96 examples, once" in done.stderr
    assert len(list(kept.glob("*.float16"))) == 1
    done = run("finetune", *flags, f"--out_dir={tmp_path / 'b'}")
    assert "examples, once" not in done.stderr
    taught, again = (model.load(tmp_path / name).get_weights() for name in "ab")
    assert all(np.array_equal(*pair) for pair in zip(taught, again, strict=True))


@pytest.mark.parametrize(("flags", "message"), [
    (["--augment=1"], "--augment needs a teacher.*Received: --augment=1"),
    (["--cache_teacher_logits"], "--cache_teacher_logits needs a teacher"),
    (["--distil_soft_weight=0"], "the teacher teaches nothing. Received: soft_weight"),
    (["--distil_soft_weight=1", "--distil_temperature=0"], "temperature=0.0"),
    (["--distil_hidden_weight=1", "--cache_teacher_logits"],
     "keep logits alone.*Received: hidden_weight=1.0"),
    (["--distil_soft_weight=1", "--unlabelled_file={train}.csv"], "Received: .*csv"),
    (["--distil_soft_weight=1", "--unlabelled_file={train}", "--text_column=words"],
     "train.tsv:1: the header has no column 'words'"),
    (["--teacher_dir={turned}"],
     "--teacher_dir must be trained for .*labels.*Received: .*good', 'fine', 'worse"),
    (["--teacher_dir={other}", "--distil_hidden_weight=1"],
     "same tokens.*Received: --teacher_dir=.*vocabulary of 103 .*another of as many; "
     "hidden_weight=1.0, relations_weight=0.0"),
])
def test_mistakes_in_the_flags_of_distillation_are_told(
        files, finetuned, tmp_path, flags, message):
    turned = shutil.copytree(finetuned.out, tmp_path / "turned")
    (turned / "task.json").unlink()  # else it counts, not the list of labels
    (turned / "labels.txt").write_text("good\nfine\nworse\n")
    other = shutil.copytree(finetuned.out, tmp_path / "other")
    (other / "tokenizer.json").unlink()  # else it counts, not the vocabulary
    words = (other / "vocab.txt").read_text().split("\n")
    (other / "vocab.txt").write_text("\n".join([*words[:-3], *words[-3:-1][::-1], ""]))
    given = [flag.format(train=files.train, turned=turned, other=other)
             for flag in flags]
    done = run("compress", *files.flags, "--smoke", "--recipe=magnitude_50",
               f"--out_dir={tmp_path / 'out'}", *given, status=1)
    assert re.search(message, done.stderr), done.stderr
