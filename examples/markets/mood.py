r"""Headlines line by line -> a running mood of each company, and its picture.

    python examples/markets/mood.py --bundle=runs/mood --file=examples/markets/feed.tsv

A line is `company<TAB>headline`, or a headline alone, whose companies are tickers such
as $HLDN, and the names in --names. Its score is P(positive) - P(negative).
"""

import argparse
import collections
import contextlib
import io
import os
import re
import select
import sys
import time
from collections.abc import Iterator

from matplotlib import colormaps
from matplotlib.figure import Figure

import tfopt
from tfopt.files import check_place, write_whole

MOST_BYTES, EVERY_S = 10_000, 2.0  # of a line; between two pictures


class Mood:
    """The exponentially weighted mean of a company's scores, in [-1, 1].

    sum(w^i s_i) / sum(w^i), i = 0 the newest score, w = 2^(-1 / half-life).
    """

    def __init__(self):
        self.mean, self._total, self._weight = 0.0, 0.0, 0.0
        self.history = collections.deque(maxlen=200)  # (line, mean)

    def add(self, score: float, w: float, line: int) -> None:
        """Takes the score of a line's headline into the mean."""
        self._total, self._weight = w * self._total + score, w * self._weight + 1
        self.mean = self._total / self._weight
        self.history.append((line, self.mean))


def lines(file: int, follow: bool, wait_s: float) -> Iterator[bytes | None]:
    """The lines of a file descriptor; None between them, at least each `wait_s`."""
    held = b""
    while True:
        ready = select.select([file], [], [], wait_s)[0]
        part = os.read(file, 1 << 16) if ready else b""
        *whole, held = (held + part).split(b"\n")
        held = held[:MOST_BYTES + 1]
        yield from whole
        if ready and not part:  # at the end of a file, where `select` does not wait
            if not follow:
                yield held
                return
            time.sleep(wait_s)
        yield None


def read(line: bytes, names: re.Pattern) -> tuple[list[str], str]:
    """A line's companies and headline; ValueError where it is not as it should be."""
    if len(line) > MOST_BYTES:
        raise ValueError(f"a line may have {MOST_BYTES:,} bytes. Received: more")
    text = "".join(sign if sign.isprintable() or sign == "\t" else " "
                   for sign in line.decode("utf-8-sig"))
    company, tab, headline = text.partition("\t")
    found = [company.strip()] if tab else names.findall(text)
    if tab and not (company.strip() and headline.strip()) or "\t" in headline:
        raise ValueError("a line must be company<TAB>headline, or a headline. Received:"
                         f" {text[:60]!r}")
    return [name[:40] for name in dict.fromkeys(found)], (headline or text).strip()


def finder(path: str | None) -> re.Pattern:
    """What finds tickers, and the names of a file as they stand there."""
    names = sorted(tfopt.data.read_texts(path).texts if path else [], reverse=True)
    return re.compile("|".join([r"\$[A-Z]{1,5}(?!\w)", *(
        rf"(?<!\w){re.escape(name)}(?!\w)" for name in names)]))


def draw(moods: dict[str, Mood], path: str) -> None:
    """Replaces the picture: the moods now, and how they came about."""
    figure = Figure(figsize=(10, 1.5 + 0.35 * len(moods)), layout="constrained")
    now, course = figure.subplots(1, 2)
    order = sorted(moods, key=lambda name: moods[name].mean)
    for place, name in enumerate(order):
        colour = colormaps["tab20"](place % 20)  # the same in both
        now.barh(place, moods[name].mean, color=colour)
        course.plot(*zip(*moods[name].history, strict=True), "o-", color=colour, ms=3)
    now.set_yticks(range(len(order)), order, parse_math=False)
    now.set(xlim=(-1, 1), xticks=(-1, 0, 1), title="mood now")
    course.set(ylim=(-1.05, 1.05), xlabel="line", title="by line")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())


def main(arguments: list[str] | None = None) -> None:
    """Follows the lines, prints each company's score and mood, draws now and then."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--bundle", required=True, help="with the labels positive and negative")
    add("--file", default="/dev/stdin", help="of headlines")
    add("--follow", action="store_true", help="wait for more at the file's end")
    add("--names", help="a .txt of companies' names, one a line")
    add("--half_life", type=float, default=5, help="headlines, of a score")
    add("--most", type=int, default=20, help="companies; the longest silent one goes")
    add("--picture", default="mood.png")
    args = parser.parse_args(arguments)
    if not (0 < args.half_life < 1e6 and 0 < args.most <= 100):
        raise ValueError("--half_life must be above 0, --most 1 to 100. Received: "
                         f"{args.half_life}, {args.most}")
    bundle, names = tfopt.Bundle.open(args.bundle), finder(args.names)
    if not {"positive", "negative"} <= {*bundle.task.labels}:
        raise ValueError("--bundle must have the labels positive and negative. "
                         f"Received: {', '.join(bundle.task.labels)[:200]}")
    check_place(args.picture)
    moods: dict[str, Mood] = {}  # that of the newest line is the last one
    number, drawn = 0, time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), open(args.file, "rb") as file:
        for line in lines(file.fileno(), args.follow, EVERY_S):
            if time.monotonic() > drawn + EVERY_S:
                draw(moods, args.picture)
                drawn = time.monotonic()
            number += line is not None
            try:
                companies, headline = read(line, names) if line else ([], "")
                answers = bundle.predict([headline] if companies else [])
            except ValueError as error:
                print(f"{args.file}:{number}: skipped: {error}", file=sys.stderr)
                continue
            for name in companies:
                scores = answers[0]["scores"]
                mood = moods[name] = moods.pop(name, Mood())
                score = scores["positive"] - scores["negative"]
                mood.add(score, 2 ** (-1 / args.half_life), number)
                print(f"{name}\t{score:+.2f}\t{mood.mean:+.2f}\t{headline}", flush=True)
            while len(moods) > args.most:
                del moods[next(iter(moods))]
    draw(moods, args.picture)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"mood.py: {error}")
