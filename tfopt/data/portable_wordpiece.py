"""Text -> token ids by WordPiece (BERT, arXiv:1810.04805), made to be ported.

To C, Kotlin or Swift: no library, no Unicode but the file's; arrays of whole numbers,
and loops. `tfopt tokenizer` writes the file, docs/portable_wordpiece.md describes it.
"""

import struct

MAGIC = b"tfoptwp1"  # the last letter is the version
HEADER = 13  # numbers behind it, as `__init__` names them
BARRIER = 0x110000  # for a dropped mark, across which others do not change places
BLOCK, BLOCKS = 128, 0x110000 // 128 + 1  # code points of a block; blocks
SPACE = 1  # a kind of code points; 0 is part of a word, 2 stands alone
# Roots of the trie; added tokens are found in the text as it is, or as normalized.
WORDS, PIECES, RAW, NORMALIZED, ROOTS = 0, 1, 2, 3, 4


class PortableWordPiece:
    """The tokenizer of a table.

    Args:
        contents: of a file that `tfopt tokenizer` wrote.

    Raises:
        ValueError: it is another file, or damaged.
    """

    def __init__(self, contents: bytes):
        count = len(contents) // 4 - 2
        if contents[:8] != MAGIC or count < HEADER + BLOCKS or len(contents) % 4:
            raise ValueError(f"A WordPiece table must begin with {MAGIC!r}. Received: "
                             f"{contents[:8]!r}, {len(contents)} bytes")
        self.n = struct.unpack_from(f"<{count}i", contents, 8)  # int32, little-endian
        (check, self.flags, self.size, self.longest_word, self.unknown_id,
         self.cls_id, self.sep_id, self.pad_id, self.between, self.segments,
         blocks, mapped, nodes) = self.n[:HEADER]
        self.facts = HEADER + BLOCKS  # where the arrays begin
        self.mapped = self.facts + BLOCK * blocks
        self.label = self.mapped + mapped  # a node's code point
        self.child = self.label + nodes  # its first child; they end where the next's do
        self.id = self.child + nodes + 1  # of the entry that ends there, or -1
        ranges = (  # from, to, least, beyond: every index leads into its array
            (4, 8, 0, self.size), (8, 9, 1, 3), (10, 13, 1, count),
            (HEADER, self.facts, 0, blocks), (self.mapped, self.label, 0, BARRIER + 1),
            (self.facts, self.mapped, 0, (mapped - 13) << 12),  # one becomes 14 at most
            (self.child, self.id, ROOTS, nodes + 1), (self.id, count, -1, self.size))
        if self.id + nodes != count or checksum(self.n) != check % (1 << 32) or not all(
                least <= x < beyond for start, end, least, beyond in ranges
                for x in self.n[start:end]):
            raise ValueError("A WordPiece table must be as it was written; this one is "
                             f"damaged. Received: {len(contents)} bytes")

    def encode(self, text: str, pair: str | None = None, max_length: int = 512
               ) -> tuple[list[int], int]:
        """Token ids of a text or a pair, and how many are of the first segment.

        Args:
            text: of valid Unicode.
            pair: the second text, or None.
            max_length: ids at most; of a pair the longer text is cut first.

        Raises:
            ValueError: a text has half of a surrogate pair, or there is no room.
        """
        between = 0 if pair is None else self.between
        room = max_length - 2 - between
        if room < 1:
            raise ValueError(f"Ids need room. Received: max_length={max_length}")
        texts = [[ord(letter) for letter in part] for part in (text, pair or "")]
        if any(0xD800 <= point < 0xE000 for points in texts for point in points):
            raise ValueError(f"A text must be valid Unicode. Received: {text!r:.60}")
        first, second = (self._split(points, RAW) for points in texts)
        if len(first) + len(second) > room:
            short = min(len(first), len(second), room // 2)
            keep = room - short if len(first) > len(second) else short
            first, second = first[:keep], second[:room - keep]
        ids = [self.cls_id, *first, *[self.sep_id] * between]
        whole = [*ids, *second, self.sep_id]
        return whole, len(ids) if between and self.segments else len(whole)

    def _split(self, points: list[int], root: int) -> list[int]:
        """Added tokens become their ids; what stands between them is read on."""
        ids, start = [], 0
        for place in range(len(points) + 1):
            end, token = self._longest(root, points, place)
            if place >= start and (token >= 0 or place == len(points)):
                part = points[start:place]
                ids += (self._split(self._normalized(part), NORMALIZED) if root == RAW
                        else self._words(part))
                ids += [token] if token >= 0 else []
                start = end
        return ids

    def _fact(self, point: int) -> int:
        block = self.n[HEADER + point // BLOCK]
        return self.n[self.facts + BLOCK * block + point % BLOCK]

    def _normalized(self, points: list[int]) -> list[int]:
        """Each code point becomes none, one or several; marks in canonical order."""
        out: list[int] = []
        for point in points:
            fact = self._fact(point)
            start, count = self.mapped + (fact >> 12), fact >> 8 & 15
            for part in self.n[start:start + count - 1] if count else [point]:
                order, place = self._fact(part) >> 4 & 15, len(out)
                out.append(part)
                while place and self._fact(out[place - 1]) >> 4 & 15 > order > 0:
                    out[place - 1], out[place] = out[place], out[place - 1]
                    place -= 1
        return [point for point in out if point != BARRIER]

    def _words(self, points: list[int]) -> list[int]:
        """Cuts at white space, and round what stands alone, such as punctuation."""
        ids, start = [], 0
        while start < len(points):
            kind, end = self._fact(points[start]) & 15, start + 1
            while kind == 0 and end < len(points) and self._fact(points[end]) & 15 == 0:
                end += 1
            ids += [] if kind == SPACE else self._pieces(points[start:end])
            start = end
        return ids

    def _pieces(self, word: list[int]) -> list[int]:
        """The longest entries that spell a word; [UNK] where none do."""
        ids, start, token = [], 0, 0
        while start < len(word) <= self.longest_word and token >= 0:
            start, token = self._longest(PIECES if start else WORDS, word, start)
            ids.append(token)
        return [self.unknown_id] if token < 0 or not ids else ids

    def _longest(self, node: int, points: list[int], start: int) -> tuple[int, int]:
        """Where the longest entry below a root ends that stands at a place; its id."""
        found, token = start, -1
        while start < len(points):
            low, high = self.n[self.child + node:self.child + node + 2]
            while high - low > 1:  # children are sorted by their code points
                middle = (low + high) // 2
                above = self.n[self.label + middle] > points[start]
                low, high = (low, middle) if above else (middle, high)
            if low >= high or self.n[self.label + low] != points[start]:
                break
            node, start = low, start + 1
            if self.n[self.id + node] >= 0:
                found, token = start, self.n[self.id + node]
        return found, token


def checksum(numbers: tuple[int, ...]) -> int:
    """Of all numbers of a file but the first, in 32 bits without a sign."""
    return sum((2 * i + 1) * x for i, x in enumerate(numbers[1:])) % (1 << 32)
