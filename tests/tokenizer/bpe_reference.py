"""Byte-level BPE, slow and obvious: what the compiled one is compared with."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

FIRST_BYTE, FIRST_MERGE, MAX_TOKEN_BYTES = 4, 260, 255

# The pattern over text in which each character outside ASCII is replaced by an ASCII one of its class.
ASCII_PATTERN = re.compile(
    r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,2}"
    r"| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)


def stand_in(char: str) -> str:
    if char.isascii():
        return char
    if char == "\x85":
        return "\t"
    return {"L": "z", "N": "0", "Z": "\t"}.get(unicodedata.category(char)[0], "#")


def split(data: bytes) -> list[bytes]:
    text = data.decode(errors="surrogateescape")  # each ill-formed byte becomes a lone surrogate, of category Cs
    shadow = "".join(map(stand_in, text))
    found = [text[m.start() : m.end()].encode(errors="surrogateescape") for m in ASCII_PATTERN.finditer(shadow)]
    assert b"".join(found) == data
    return found


def apply(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def train(docs: Sequence[bytes], n_merges: int) -> list[tuple[int, int]]:
    words = Counter(piece for doc in docs for piece in split(doc))
    segmented = {word: [b + FIRST_BYTE for b in word] for word in words}
    length = dict.fromkeys(range(FIRST_MERGE), 1)
    merges: list[tuple[int, int]] = []
    while len(merges) < n_merges:
        counts: Counter[tuple[int, int]] = Counter()
        for word, ids in segmented.items():
            for pair in itertools.pairwise(ids):
                if length[pair[0]] + length[pair[1]] <= MAX_TOKEN_BYTES:
                    counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        new = FIRST_MERGE + len(merges)
        length[new] = length[best[0]] + length[best[1]]
        merges.append(best)
        segmented = {word: apply(ids, best, new) for word, ids in segmented.items()}
    return merges


def encode(data: bytes, merges: Sequence[tuple[int, int]]) -> list[int]:
    out: list[int] = []
    for word in split(data):
        ids = [b + FIRST_BYTE for b in word]
        for i, pair in enumerate(merges):
            ids = apply(ids, pair, FIRST_MERGE + i)
        out += ids
    return out
