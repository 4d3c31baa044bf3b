r"""What a person may like next: the items nearest to what they liked, as vectors.

    python examples/recommend/recommend.py --bundle=runs/vectors \
        --liked="Sourdough for beginners" --liked="Pickles, kimchi and other ferments"
    python examples/recommend/recommend.py --bundle=runs/vectors --benchmark=10000

`tfopt compress --task=embedding --model_dir=minilm --recipe=int8 --out_dir=DIR` makes
such a bundle, without training.
"""

import argparse
import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

import tfopt
from tfopt.files import read_arrays, to_json, write_whole

ITEMS = Path(__file__).with_name("courses.tsv")
MOST_ITEMS, MOST_MS, ROUNDS, CHUNK = 200_000, 5.0, 300, 256


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors <float>[..., D] of length 1 <float32>; one of 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def embed(bundle: tfopt.Bundle, texts: Sequence[str]) -> np.ndarray:
    """The vectors of N texts <float32>[N, D]."""
    return unit(np.concatenate([bundle.embed(texts[at:at + CHUNK])
                                for at in range(0, len(texts), CHUNK)]))


def kept_or_embedded(bundle: tfopt.Bundle, texts: Sequence[str], path: str
                     ) -> np.ndarray:
    """As `embed`, from an .npz if it has the vectors of these texts and this bundle."""
    made_of = to_json([bundle.fields["files"], texts]).encode()
    key = np.frombuffer(hashlib.sha256(made_of).digest(), np.uint8)
    if Path(path).exists():
        arrays = read_arrays(path)
        if {*arrays} != {"key", "vectors"}:
            raise ValueError("--vectors must be new, or what this script wrote. "
                             f"Received: {path}")
        if np.array_equal(arrays["key"], key):
            return arrays["vectors"]
    vectors, buffer = embed(bundle, texts), io.BytesIO()
    np.savez(buffer, key=key, vectors=vectors)
    write_whole(path, buffer.getvalue())
    return vectors


def person(liked: np.ndarray, half_life: float) -> np.ndarray:
    """A person: the mean of the vectors of what they liked, the newest counting most.

    From <float32>[H, D], the newest last, to <float32>[D] of length 1.
    """
    return unit(2.0 ** (-np.arange(len(liked))[::-1] / half_life) @ liked)


def nearest(vectors: np.ndarray, one: np.ndarray, count: int, known: Sequence[int] = ()
            ) -> list[tuple[int, float]]:
    """Places and cosines of the nearest of N vectors, but for the known ones.

    From <float32>[N, D] and <float32>[D], of length 1, to `count` at most, best first.
    """
    cosines = vectors @ one
    cosines[list(known)] = -np.inf
    count = min(count, len(vectors) - len(known))
    best = np.argpartition(cosines, -count)[-count:] if count else np.zeros(0, int)
    return sorted(((int(at), float(cosines[at])) for at in best),
                  key=lambda found: -found[1])


def times(call: Callable, inputs: Iterable) -> tuple[float, float]:
    """p50 and p90 of a call, in ms."""
    taken = []
    for one in inputs:
        begun = time.perf_counter()
        call(one)
        taken.append(1e3 * (time.perf_counter() - begun))
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 90))


def benchmark(bundle: tfopt.Bundle, count: int, texts: Sequence[str]) -> dict:
    """The times of a lookup among synthetic items, and of the vector of a text."""
    random, width = np.random.default_rng(0), embed(bundle, texts[:1]).shape[1]
    vectors = unit(random.standard_normal([count, width], np.float32))
    people = unit(random.standard_normal([ROUNDS, width], np.float32))
    lookup = times(lambda one: nearest(vectors, one, 10, [0]), people)
    text = times(lambda one: embed(bundle, [one]), [*texts, *texts, *texts][:ROUNDS])
    return {"items": count, "width": width, "cores": len(os.sched_getaffinity(0)),
            "lookup_p50_ms": lookup[0], "lookup_p90_ms": lookup[1],
            "text_p50_ms": text[0], "text_p90_ms": text[1]}


def main(arguments: list[str] | None = None) -> int:
    """Prints the nearest items, or the benchmark's figures; 2 where it is too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--bundle", required=True, help="of the task embedding")
    add("--items", default=ITEMS, help=".txt, .tsv, .csv or .jsonl of texts")
    add("--vectors", help="an .npz in which the items' vectors are kept")
    add("--liked", action="append", default=[], help="a text, the newest last")
    add("--half_life", type=float, default=3, help="items, of what was liked")
    add("--count", type=int, default=5, help="how many to recommend")
    add("--benchmark", type=int, metavar="N", help="time the lookup among N items")
    args = parser.parse_args(arguments)
    if not (0 < args.half_life < 1e6 and args.count > 0
            and (args.benchmark is None or 0 < args.benchmark <= MOST_ITEMS)):
        raise ValueError(f"--half_life and --count must be above 0, --benchmark 1 to "
                         f"{MOST_ITEMS:,}. Received: {args.half_life}, {args.count}, "
                         f"{args.benchmark}")
    bundle = tfopt.Bundle.open(args.bundle)
    items = tfopt.data.read_texts(args.items).texts
    if len(items) > MOST_ITEMS:
        raise ValueError(f"--items may have {MOST_ITEMS:,}. Received: {len(items):,}")
    if args.benchmark:
        figures = benchmark(bundle, args.benchmark, items)
        print(to_json({"environment": tfopt.report.environment(), "figures": figures},
                      indent=1))
        return 2 if figures["lookup_p50_ms"] > MOST_MS else 0
    if not all(text.strip() for text in args.liked or [""]):
        raise ValueError(f"--liked must be a text, or several. Received: {args.liked}")
    vectors = (kept_or_embedded(bundle, items, args.vectors) if args.vectors
               else embed(bundle, items))
    known = [at for at, item in enumerate(items) if item in args.liked]
    one = person(embed(bundle, args.liked), args.half_life)
    for at, cosine in nearest(vectors, one, args.count, known):
        print(f"{cosine:.3f}\t{items[at]}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"recommend.py: {error}")
