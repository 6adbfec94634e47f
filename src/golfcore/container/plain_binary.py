"""Decode codec 9 of GCF1 in numpy; ``plain_decoder.py`` needs this file only if there are such chunks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BIT_BITS, BIT_MASK, BIT_ONE, BIT_LOW, BIT_WORD = (
    np.array(n, np.uint64) for n in (15, (1 << 15) - 1, 1 << 15, 1 << 24, 16)
)
BIT_BLOCK, BIT_HALVE = 1024, 1 << 20


class Bits:
    """A decoder of interleaved binary rANS: every numpy step decodes one decision per lane."""

    def __init__(self, coded: bytes, lanes: int) -> None:
        raw = np.frombuffer(coded, np.uint8, 5 * lanes).reshape(lanes, 5).astype(np.uint64)
        self.x = (raw << np.arange(0, 40, 8, dtype=np.uint64)).sum(1, dtype=np.uint64)
        words = np.frombuffer(coded[5 * lanes :][: (len(coded) - 5 * lanes) // 2 * 2], "<u2")
        self.words, self.word = words.astype(np.uint64), 0

    def plane(self, one: Array) -> Array:
        """Decode decisions, given the probability of a yes for each, uint64 in units of 2^-15."""
        lanes, yes = self.x.size, np.empty(one.size, np.bool_)
        none = BIT_ONE - one
        for i in range(0, one.size, lanes):
            p = one[i : i + lanes]
            x = self.x[: p.size]
            slot = x & BIT_MASK
            bit = np.less(slot, p, out=yes[i : i + lanes])
            x >>= BIT_BITS
            x *= np.where(bit, p, none[i : i + lanes])
            x += slot
            x -= p * ~bit
            (low,) = (x < BIT_LOW).nonzero()
            after = self.word + low.size
            x[low] = x[low] << BIT_WORD | self.words[self.word : after]
            self.word = after
        return yes


def binary(
    coded: bytes,
    params: bytes,
    bits: int,
    trellis: int,
    matrices: list[tuple[int, int]],
    thresholds: Array,
    code: tuple[int, int],
    first_counts: Callable[[int, int, int, int], Array],
) -> Array:
    """Decode a chunk of codec 9: yes-or-no decisions whose probabilities are learned from the blocks before.

    ``thresholds``, the trellis's ``code`` and ``first_counts`` come from ``plain_decoder``.
    """
    lanes_log2, prior_log2, shift = params
    mean, prior, per_class = int.from_bytes(coded[:2], "little"), 1 << prior_log2, 2 if trellis else 1
    half = 1 << (bits - 1)
    places = half + 2
    decide = Bits(coded[2:], 1 << lanes_log2)
    masks = np.array([0, code[0] >> 1, code[1] >> 1, (code[0] ^ code[1]) >> 1])
    seen = np.zeros((len(thresholds) * per_class, places, 2), np.int64)
    one = np.zeros(seen.shape[:2], np.uint64)
    started = np.zeros(len(thresholds), np.bool_)
    out = []
    for all_rows, cols in matrices:
        sum_C, state_C = np.zeros(cols, np.int64), np.zeros(cols, np.int64)
        row, growth = 0, 1
        while row < all_rows:
            rows = 1 if trellis else min(all_rows - row, growth, max(1, BIT_BLOCK // cols))
            means = (128 * sum_C + prior * mean) // (row + prior)
            class_C = np.searchsorted(thresholds, means, "right") >> shift
            classes = np.unique(class_C)
            for c in classes[~started[classes]].tolist():
                for z in range(per_class):
                    seen[per_class * c + z] = first_decisions(first_counts(c, z, shift, bits), z, bits)
                started[c] = True
            used = (per_class * classes[:, None] + np.arange(per_class)).reshape(-1)
            counts = seen[used]
            while (much := counts.sum(-1) >= BIT_HALVE).any():
                counts[much] >>= 1
            seen[used] = counts
            one[used] = np.clip((2 * counts[..., 1] + 1 << 15) // (2 * counts.sum(-1) + 2), 1, (1 << 15) - 1)
            z_W = np.tile(state_C & 1, rows) if trellis else np.zeros(rows * cols, np.int64)
            context_W = (per_class * np.tile(class_C, rows) + z_W) * places
            size_W, negative_W, answers = decisions(decide, one.reshape(-1), context_W, z_W, half)
            np.add.at(seen.reshape(-1), answers, 16)
            symbols = np.where(negative_W, -size_W, size_W - z_W)
            if trellis:
                state_C = (state_C >> 1) ^ masks[(2 * symbols + z_W) & 3]
            out.append(symbols.astype(np.int8))
            sum_C += (2 * size_W - z_W).reshape(rows, cols).sum(0)
            row, growth = row + rows, min(2 * growth, 4096)
            mean = 128 * int(sum_C.sum()) // (row * cols)
    return np.concatenate(out)


def decisions(decide: Bits, one: Array, context_W: Array, z_W: Array, half: int) -> tuple[Array, Array, Array]:
    """Decode the decisions of a block: sizes, signs, and the place where each answer is counted.

    ``one``: by context and place, the probability of yes; ``context_W``: of each weight, its first place.
    """
    size_W, negative_W = z_W.copy(), np.zeros(len(z_W), np.bool_)
    answers: list[Array] = []

    def ask(place: int, who: Array) -> Array:
        context = context_W[who] + place
        yes = decide.plane(one[context])
        answers.append(2 * context + yes)
        return yes

    who = np.flatnonzero(z_W == 0)
    size_W[who] += ask(0, who)
    who = np.flatnonzero(size_W)
    negative_W[who] = ask(1, who)
    for size in range(1, half):
        if size == half - 1:
            who = who[negative_W[who] | (z_W[who] == 1)]
        if not who.size:
            break
        who = who[ask(1 + size, who)]
        size_W[who] += 1
    return size_W, negative_W, np.concatenate(answers)


def first_decisions(counts: Array, z: int, bits: int) -> Array:
    """Return the first counts of each decision [place, no or yes], from a class's first counts of symbols."""
    k = np.arange(1 << bits) - (1 << bits - 1)
    size = np.where(k < 0, -k, k + z)
    of_size = np.bincount(size, counts, (1 << bits - 1) + 2).astype(np.int64)
    larger = of_size.sum() - np.cumsum(of_size)  # than 0, 1, ...
    negative = counts[k < 0].sum()
    pairs = np.stack([of_size, larger], 1)
    found: Array = np.concatenate([pairs[:1], [[larger[0] - negative, negative]], pairs[1:-1]])
    return found
