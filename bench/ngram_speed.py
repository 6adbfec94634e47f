"""Time the n-gram mixture on one core: tokens per second through ``score``, and with the whole distribution of each.

``python bench/ngram_speed.py DATA [--order 8] [--tokens 0]`` reads the validation tokens of a prepared folder, with a
model that knows only how frequent tokens are. Before it times anything it compares the first 300 losses with those of
the mixture in plain Python.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from golfcore.data.tokens import open_tokens
from golfcore.machine import cpu_model
from golfcore.ops.ngram import NgramMixture
from golfcore.ops.reference.ngram import PlainMixture

BOS, CHECKED = 1, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder that golfcore data prepare made")
    parser.add_argument("--tokens", type=int, default=0, help="tokens to read; 0: all")
    parser.add_argument("--order", type=int, default=8)
    options = parser.parse_args()
    data = open_tokens(options.data)
    tokens, vocab_size = data.shards("val")[: options.tokens or None], data.vocab_size
    p_V = np.bincount(tokens, minlength=vocab_size) + 1.0
    p_V = (p_V / p_V.sum()).astype(np.float32)
    log_p, likeliest = np.log(p_V), int(p_V.argmax())
    top = np.full(len(tokens), likeliest, np.uint16)
    top_log_p = np.full(len(tokens), log_p[likeliest], np.float32)

    plain = PlainMixture(vocab_size, options.order, BOS, rate=0.2, bias=-3.0)
    expected = [
        plain.score(int(token), float(log_p[token]), float(log_p[likeliest]), likeliest) for token in tokens[:CHECKED]
    ]
    part = slice(0, CHECKED)
    found = NgramMixture(vocab_size, order=options.order, bos=BOS).score(
        tokens[part], log_p[tokens[part]], top_log_p[part], top[part]
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4)

    mixture = NgramMixture(vocab_size, order=options.order, bos=BOS)
    began = time.perf_counter()
    losses = mixture.score(tokens, log_p[tokens], top_log_p, top)
    scored_s = time.perf_counter() - began

    mixture = NgramMixture(vocab_size, order=options.order, bos=BOS)
    began = time.perf_counter()
    for at in range(len(tokens)):
        one = slice(at, at + 1)
        mixture.distribution(p_V)
        mixture.score(tokens[one], log_p[tokens[one]], top_log_p[one], top[one])
    whole_s = time.perf_counter() - began
    print(
        f"{cpu_model()}: {len(tokens):,} tokens, vocabulary {vocab_size:,}, order {options.order}; "
        f"{losses.mean():.3f} nats per token, alone {-log_p[tokens].mean():.3f}; "
        f"{len(tokens) / scored_s:,.0f} tokens/s through score, "
        f"{len(tokens) / whole_s:,.0f} with the whole distribution of each"
    )


if __name__ == "__main__":
    main()
