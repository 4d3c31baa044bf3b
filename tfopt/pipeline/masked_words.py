"""Copies of texts whose replaced words a masked language model has chosen.

A word is masked, and another drawn of those that the model finds most likely in its
place (Kobayashi 2018, arXiv:1805.06201; how many are candidates, after Jiao et al.
2019, arXiv:1909.10351, algorithm 1). What is found is kept in a file, line by line, so
that a killed run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from tfopt import data, inputs, model
from tfopt.data.augment import Draft, bare
from tfopt.data.tokenizer import Tokenizer
from tfopt.files import to_json
from tfopt.model import masked_lm
from tfopt.pipeline.identity import of_checkpoint
from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt.pipeline.fine_tuning import FineTuning

CANDIDATES = 15
_BATCH = 64  # drafts
_LOGGED_S = 10.0


@dataclasses.dataclass(frozen=True)
class MaskedWords:
    """Finds the words for gaps of drafts; a `data.augment.Fill`.

    Attributes:
        path: of a checkpoint with the head of masked language modelling.
        directory: where what is found is kept.
        max_length: tokens to which texts are cut; what is behind stays as it is.
        seed: of all chance.
    """

    path: PathLike
    directory: Path
    max_length: int
    seed: int = 0

    def __call__(self, drafts: Sequence[Draft], banned: frozenset[str]
                 ) -> list[list[str]]:
        """Finds a word for each gap.

        Args:
            drafts: changed texts.
            banned: words, as `bare` has them, that take no gap.

        Returns:
            Of each draft a word for each of its gaps; the old one where nothing else
            is likely, or the text is too long.

        Raises:
            ValueError: the checkpoint cannot be read, or its tokenizer has no words.
        """
        found: list[list[str]] = [[] for _ in drafts]
        # By length, so that a batch has little padding.
        order = sorted((row for row, draft in enumerate(drafts) if draft.gaps),
                       key=lambda row: (len(drafts[row].words), row))
        wanted = [drafts[row] for row in order]
        place = self.directory / f"{self._name(wanted, banned)}.words.jsonl"
        kept = _kept(place, wanted)
        if len(kept) < len(wanted):
            kept += self._find(wanted, banned, place, kept)
        for row, words in zip(order, kept, strict=True):
            found[row] = words
        return found

    def _find(self, drafts: Sequence[Draft], banned: frozenset[str], place: Path,
              kept: Sequence[list[str]]) -> list[list[str]]:
        """Finds the words that are not kept yet, and keeps them."""
        logging.info("A masked language model finds words for %d copies",
                     len(drafts) - len(kept))
        tokenizer = data.tokenizer_from(model.directory(self.path))
        words = _Words(masked_lm.load(self.path), tokenizer, {
            number: word for number, word in whole_words(tokenizer).items()
            if bare(word) not in banned})
        found: list[list[str]] = []
        begun = logged = time.monotonic()
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "w", encoding="utf-8") as file:
            file.writelines(_line(own) for own in kept)
            for start in range(len(kept), len(drafts), _BATCH):
                part = drafts[start:start + _BATCH]
                # Of its own, so that a killed run draws the same.
                chance = np.random.default_rng([self.seed, start])
                found += words.likely(part, self.max_length, chance)
                file.writelines(_line(own) for own in found[-len(part):])
                file.flush()
                now = time.monotonic()
                if now - logged > _LOGGED_S:
                    left = (now - begun) / len(found) * (
                        len(drafts) - len(kept) - len(found))
                    logging.info("Words for %d of %d copies, %.0f s left",
                                 len(kept) + len(found), len(drafts), left)
                    logged = now
        return found

    def _name(self, drafts: Sequence[Draft], banned: frozenset[str]) -> str:
        """A hash of all that the words depend on."""
        made = hashlib.sha256(to_json({
            "model": of_checkpoint(self.path, model.directory(self.path)),
            "max_length": self.max_length, "seed": self.seed, "batch": _BATCH,
            "candidates": CANDIDATES, "banned": sorted(banned)}).encode())
        for draft in drafts:
            made.update(to_json([draft.words, draft.gaps]).encode())
        return made.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Words:
    """A masked language model, its tokenizer, and the words it may take, by id."""

    model: masked_lm.MaskedLM
    tokenizer: Tokenizer
    known: Mapping[int, str]

    def likely(self, drafts: Sequence[Draft], max_length: int,
               chance: np.random.Generator) -> Iterator[list[str]]:
        """Draws a word for each gap, all gaps of a text masked at once."""
        mask = self.tokenizer.mask_id
        assert mask is not None
        token = self.tokenizer.words[mask]
        encoded = self.tokenizer.encode(
            [draft.filled([token] * len(draft.gaps)) for draft in drafts],
            max_length=max_length)
        arrays = inputs.build(encoded.ids, encoded.first_lengths,
                              self.model.states.input_names, pad_id=encoded.pad_id)
        places = np.argwhere(arrays["input_ids"] == mask)
        # Where all gaps were cut away there is nothing to ask.
        logits = (self.model.logits(arrays, places)[:, list(self.known)]
                  if len(places) else np.zeros([0, len(self.known)]))
        rows, words = places[:, 0], list(self.known.values())
        for row, draft in enumerate(drafts):
            own = logits[rows == row]
            # A text that was cut has fewer masks, and keeps its last words.
            yield [self._drawn(own[gap], words, draft.words[place], chance)
                   if gap < len(own) else draft.words[place]
                   for gap, place in enumerate(draft.gaps)]

    def _drawn(self, logits: np.ndarray, words: Sequence[str], old: str,
               chance: np.random.Generator) -> str:
        """One of the most likely words, by their probabilities."""
        best = np.argsort(-logits, kind="stable")[:CANDIDATES + 1]
        found = [number for number in best
                 if bare(words[number]) != bare(old)][:CANDIDATES]
        if not found:
            return old
        parts = np.exp(logits[found] - logits[found].max())
        return words[found[chance.choice(len(found), p=parts / parts.sum())]]


def whole_words(tokenizer: Tokenizer) -> dict[int, str]:
    """The entries of a vocabulary that are a word of letters, with a space before it.

    Raises:
        ValueError: the tokenizer is neither WordPiece nor byte-level BPE, or has no
            mask token.
    """
    made = tokenizer.description()["model"]
    kind = made.get("type")
    if kind not in ("WordPiece", "BPE") or tokenizer.mask_id is None:
        raise ValueError(
            "The tokenizer of a masked language model must be WordPiece or byte-level "
            "BPE, with a token for the mask. Received: "
            f"{kind}, mask_id={tokenizer.mask_id}")
    if kind == "BPE":  # Ġ is a space; letters beyond ASCII are several of its bytes
        return {number: word[1:] for number, word in enumerate(tokenizer.words)
                if word[:1] == "Ġ" and word[1:].isascii() and word[1:].isalpha()}
    return {number: word for number, word in enumerate(tokenizer.words)
            if word.isalpha()}


def of(tuning: FineTuning, state: Path) -> MaskedWords | None:
    """What finds words for copies; None where there is no model for it.

    Args:
        tuning: names it (`named`).
        state: of the run, where what is found is kept if nothing else is said.

    Raises:
        ValueError: as `named`.
    """
    path = named(tuning)
    return None if path is None else MaskedWords(
        path, Path(tuning.teacher.logits_dir or state / "copies"), tuning.data.tokens,
        tuning.settings.seed)


def named(tuning: FineTuning) -> PathLike | None:
    """The checkpoint that finds words for copies; None where there is none.

    It is the one that is named, or the teacher's, where that has such a head.

    Raises:
        ValueError: the one that is named has none, or its tokenizer no words.
    """
    own, teacher = tuning.teacher.augment_model, tuning.teacher.teacher
    if own is None:
        return teacher if teacher is not None and masked_lm.has_head(teacher) else None
    masked_lm.check(own)
    whole_words(data.tokenizer_from(model.directory(own)))
    return own


def _kept(place: Path, drafts: Sequence[Draft]) -> list[list[str]]:
    """What a file holds already; up to the first line that is no answer."""
    found: list[list[str]] = []
    if not place.is_file():
        return found
    with open(place, encoding="utf-8", errors="replace") as file:
        for line, draft in zip(file, drafts, strict=False):
            try:
                words = json.loads(line)
            except ValueError:
                break
            if not (isinstance(words, list) and len(words) == len(draft.gaps)
                    and all(isinstance(word, str) for word in words)):
                break
            found.append(words)
    return found[:len(found) - len(found) % _BATCH] if len(found) < len(drafts) else (
        found)


def _line(words: Sequence[str]) -> str:
    return to_json(words, ensure_ascii=False) + "\n"
