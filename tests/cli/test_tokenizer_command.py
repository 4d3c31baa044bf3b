"""`tfopt tokenizer`: one file of a bundle's WordPiece, or a sentence."""

from __future__ import annotations

import json
import subprocess
import sys

from scripts import run

from tfopt import data
from tfopt.data import wordpiece_table
from tfopt.data.portable_wordpiece import PortableWordPiece


def test_it_writes_the_table_without_tensorflow(tiny_dir, tmp_path, no_tensorflow):
    file = tmp_path / "new" / "wordpiece.bin"
    done = subprocess.run(
        [sys.executable, "-m", "tfopt.cli", "tokenizer", str(tiny_dir),
         f"--out_file={file}"], env=no_tensorflow, capture_output=True, text=True,
        check=False)
    assert done.returncode == 0, done.stderr
    contents = file.read_bytes()
    assert done.stdout == (f"{file}: {len(contents):,} bytes, 103 entries, "
                           "lower case\n")
    tokenizer = data.tokenizer_from(tiny_dir)
    assert contents == wordpiece_table.to_bytes(tokenizer)
    text = "a great film, día"
    assert PortableWordPiece(contents).encode(text)[0] == tokenizer.encode(
        [text]).ids[0]


def test_what_it_cannot_write_is_one_sentence(tiny_dir, tmp_path):
    file = tmp_path / "wordpiece.bin"
    names = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "t": 5, "h": 6,
             "th": 7}
    (tmp_path / "vocab.json").write_text(json.dumps(names))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n")
    for flags, said in (
            ([f"--bundle={tmp_path}", f"--out_file={file}"], "BERT's WordPiece alone"),
            ([f"--bundle={tmp_path / 'no'}", f"--out_file={file}"], "A tokenizer must"),
            ([f"--bundle={tiny_dir}", f"--out_file={tmp_path}"], "A file must be")):
        done = run("tokenizer", *flags, status=1)
        assert done.stdout == ""
        assert said in done.stderr and "Received: " in done.stderr
    assert not file.exists()


def test_a_bundle_that_is_not_whole_is_refused(tiny_dir, tmp_path):
    data.tokenizer_from(tiny_dir).save(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps(
        {"format": 2, "task": {}, "max_length": 8, "files": {"vocab.txt": "00"}}))
    done = run("tokenizer", f"--bundle={tmp_path}", f"--out_file={tmp_path / 'x'}",
               status=1)
    assert "A bundle's file" in done.stderr
