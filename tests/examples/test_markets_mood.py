"""Moods of companies: the mean, the lines as they come, the picture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mood
import numpy as np
import pytest

from tfopt import data
from tfopt.serve import Bundle

HERE = Path(mood.__file__).parent
PNG = b"\x89PNG\r\n\x1a\n"


def test_a_mood_is_the_exponentially_weighted_mean():
    scores, found = np.random.default_rng(0).uniform(-1, 1, 300), mood.Mood()
    for number, score in enumerate(scores, start=1):
        found.add(score, 2 ** (-1 / 5), number)
        weights = 2.0 ** (-np.arange(number)[::-1] / 5)
        assert found.mean == pytest.approx(np.average(scores[:number], weights=weights))
    assert len(found.history) == 200 and found.history[-1] == (300, found.mean)


@pytest.mark.parametrize("line, companies, headline", [
    ("Acme\tAcme wins", ["Acme"], "Acme wins"),
    ("Acme Ltd\tAcme wins\r", ["Acme Ltd"], "Acme wins"),
    ("$ACME and $B.C. fall", ["$ACME", "$B"], "$ACME and $B.C. fall"),
    ("$TOOLONG and US$5 and $5", [], "$TOOLONG and US$5 and $5"),
    ("R+D Ltd beats Marl, Marl falls", ["R+D Ltd", "Marl"],
     "R+D Ltd beats Marl, Marl falls"),
    ("Marlow and marl", [], "Marlow and marl"),
    ("\ufeffAcme\tA\x1b[31mred", ["Acme"], "A [31mred"), ("", [], "")])
def test_a_line_names_companies_and_a_headline(line, companies, headline, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("Marl\nR+D Ltd\nR+D\n")
    assert mood.read(line.encode(), mood.finder(names)) == (companies, headline)


@pytest.mark.parametrize("line, said", [
    (b"\tnobody", "company<TAB>headline"), (b"Acme\t ", "company<TAB>headline"),
    (b"a\tb\tc", "company<TAB>headline"), (b"caf\xe9", "0xe9"),
    (b"a" * 10_001, "10,000 bytes")])
def test_a_bad_line_is_refused(line, said):
    with pytest.raises(ValueError, match=said):
        mood.read(line, mood.finder(None))


def test_lines_come_whole_as_they_are_written():
    reads, writes = os.pipe()
    found, pauses = [], threading.Event()

    def collect():
        for line in mood.lines(reads, follow=False, wait_s=0.01):
            if line is None:
                pauses.set()
            else:
                found.append(line)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for part in (b"one\ntw", b"o\n", b"x" * 200_000, b"y\nlast"):
            pauses.clear()
            os.write(writes, part)
            assert pauses.wait(20)
    finally:
        os.close(writes)
        thread.join(20)
        os.close(reads)
    assert found[:2] == [b"one", b"two"] and found[3:] == [b"last"]
    assert mood.MOST_BYTES < len(found[2]) < mood.MOST_BYTES + (1 << 17)


@pytest.fixture
def run(moods, tmp_path, capsys):
    """Runs the command on lines; gives rows of what it prints, and of its mistakes."""
    def run_it(contents, *flags):
        file = tmp_path / "feed.tsv"
        file.write_bytes(contents)
        mood.main([f"--bundle={moods}", f"--file={file}",
                   f"--picture={tmp_path / 'mood.png'}", *flags])
        printed = capsys.readouterr()
        return ([line.split("\t") for line in printed.out.splitlines()],
                printed.err.splitlines())

    return run_it


def test_headlines_move_the_mood_of_their_company(run, moods, tmp_path):
    rows, mistakes = run(b"A\tgreat\n\nB\tbad\nno company\nA\tawful", "--half_life=1")
    scores = [one["scores"]["positive"] - one["scores"]["negative"] for one in
              Bundle.open(moods).predict(["great", "bad", "awful"])]
    mean = (scores[0] / 2 + scores[2]) / 1.5
    assert not mistakes
    assert rows == [[name, f"{score:+.2f}", f"{found:+.2f}", headline]
                    for name, score, found, headline in [
                        ("A", scores[0], scores[0], "great"),
                        ("B", scores[1], scores[1], "bad"),
                        ("A", scores[2], mean, "awful")]]
    assert (tmp_path / "mood.png").read_bytes().startswith(PNG)


def test_bad_lines_are_named_and_passed_over(run, tmp_path):
    rows, mistakes = run(b"A\tgreat\nA\tcaf\xe9\n\nA\t\nA\tbad\n")
    assert [row[3] for row in rows] == ["great", "bad"]
    assert [line.partition(": skipped: ")[0] for line in mistakes] == [
        f"{tmp_path / 'feed.tsv'}:{number}" for number in (2, 4)]


def test_so_many_companies_are_kept_the_longest_silent_one_goes(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(mood, "draw", lambda moods, path: drawn.append([*moods]))
    run(b"A\tgood\nB\tgood\nA\tgood\nC\tgood\n", "--most=2")
    assert drawn[-1] == ["A", "C"]


def test_odd_names_are_drawn(tmp_path):
    moods = {}
    for name in ("$A$b$", "_hidden", r"\frac{1}", "x" * 40):
        moods[name] = mood.Mood()
        moods[name].add(0.5, 0.9, 1)
    for some in (moods, {}):
        mood.draw(some, str(tmp_path / "mood.png"))
        assert (tmp_path / "mood.png").read_bytes().startswith(PNG)


def test_a_file_that_grows_is_followed(moods, tmp_path):
    file, picture = tmp_path / "feed.tsv", tmp_path / "mood.png"
    file.write_text("A\tgood\n")
    with subprocess.Popen(
            [sys.executable, HERE / "mood.py", f"--bundle={moods}", f"--file={file}",
             "--follow", f"--picture={picture}"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            # A shell's background job, as which tests may run, ignores the signal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        try:
            assert process.stdout.readline().endswith("\tgood\n")
            with file.open("a") as more:
                more.write("B\tba")
                more.flush()
                time.sleep(0.1)
                more.write("d\n")
            assert process.stdout.readline().endswith("\tbad\n")
            process.send_signal(signal.SIGINT)
            _, logged = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, logged
    assert "Traceback" not in logged and "skipped" not in logged
    assert picture.read_bytes().startswith(PNG)


def test_mistakes_are_one_sentence(moods, write_bundle, tmp_path):
    from tfopt import tasks

    other = write_bundle(tasks.named("classification")(labels=("up", "flat", "down")))
    bundle = f"--bundle={moods}"
    for given, said in [
            ([bundle, "--half_life=0"], "--half_life must be above 0.*0.0"),
            ([bundle, "--half_life=nan"], "--half_life must be above 0.*nan"),
            ([bundle, "--most=0"], "--most 1 to 100.*0"),
            ([bundle, f"--names={tmp_path / 'none.txt'}"], "none.txt"),
            ([bundle, f"--picture={tmp_path}"], "A file must be named"),
            ([f"--bundle={other}"], "positive and negative. Received: up, flat, down")]:
        with pytest.raises(ValueError, match=said):
            mood.main(given)
    with pytest.raises(OSError, match="none.tsv"):
        mood.main([bundle, f"--picture={tmp_path / 'mood.png'}",
                   f"--file={tmp_path / 'none.tsv'}"])


def test_the_headlines_that_come_along_are_whole():
    train = data.read(HERE / "train.tsv")
    assert sorted(train.label_list()) == ["negative", "neutral", "positive"]
    assert len(set(train.texts)) == len(train) == 210
    lines = [mood.read(line, mood.finder(None)) for line in
             (HERE / "feed.tsv").read_bytes().splitlines()]
    assert sum(not companies for companies, _ in lines) == 1
    assert len({name for companies, _ in lines for name in companies}) == 5
    assert not {headline for _, headline in lines} & set(train.texts)
