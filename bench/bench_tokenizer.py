"""Time the tokenizer against tiktoken (encoding) and against Hugging Face tokenizers and rustbpe (training).

    python bench/bench_tokenizer.py --text TEXT.jsonl [--vocab-size 8192] [--rounds 5] [--json] [--save]

One process, one text, the same document borders for all. Before anything is timed the results are compared: our ids
must be tiktoken's with the same vocabulary, and the vocabularies learned must agree (at equal counts the libraries may
choose another pair). Rounds go through all candidates in turn, so that a busy moment of the machine hits them alike.
"Cold" is a Tokenizer that has not encoded anything; "warm" the same text again. tiktoken has no cache of words. All
start from Python strings; tiktoken ends with lists of ints, golfcore with arrays.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import record

from golfcore.tokenizer import PATTERN, Tokenizer

PACKAGES = ("golfcore", "tiktoken", "tokenizers", "rustbpe")
FIRST_BYTE = 4


def read(path: Path, limit: int) -> list[str]:
    """Read the documents of a .jsonl file, at most ``limit`` bytes of it."""
    texts: list[str] = []
    with path.open(encoding="utf-8") as f:
        for line in f:
            texts.append(json.loads(line)["text"])
            limit -= len(texts[-1].encode())
            if limit <= 0:
                break
    return texts


def measure(
    candidates: dict[str, Callable[[], Callable[[], object]]], rounds: int, tick: Callable[[str], None]
) -> dict[str, list[float]]:
    """Return the seconds of each candidate in each round; a candidate prepares untimed and returns the call to time."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(rounds):
        tick(f"round {i + 1} of {rounds}")
        for name, prepare in candidates.items():
            work = prepare()
            start = time.perf_counter()
            result = work()
            seconds[name].append(time.perf_counter() - start)
            del work, result
    return seconds


def encoders(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Callable[[], Callable[[], object]]]:
    content = tokenizer.to_bytes()
    theirs = tokenizer.to_tiktoken()

    def one_by_one(fresh: bool) -> Callable[[], object]:
        ours = Tokenizer.from_bytes(content) if fresh else tokenizer
        return lambda: [ours.encode(text) for text in texts]

    def batch(threads: int) -> Callable[[], object]:
        ours = Tokenizer.from_bytes(content)
        return lambda: ours.encode_batch([text.encode() for text in texts], threads)

    return {
        "golfcore, 1 thread, cold": lambda: one_by_one(True),
        "golfcore, 1 thread, warm": lambda: one_by_one(False),
        "golfcore, 2 threads, cold": lambda: batch(2),
        "tiktoken, 1 thread": lambda: lambda: [theirs.encode_ordinary(text) for text in texts],
        "tiktoken, 2 threads": lambda: lambda: theirs.encode_ordinary_batch(list(texts), num_threads=2),
    }


def check_encoding(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    theirs = tokenizer.to_tiktoken()
    for i, text in enumerate(texts):
        if not np.array_equal(tokenizer.encode(text), np.array(theirs.encode_ordinary(text), np.int64)):
            sys.exit(f"document {i}: our ids are not tiktoken's; nothing was timed")


def train_huggingface(texts: Sequence[str], tokens: int) -> list[str]:
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as HuggingFace

    model = HuggingFace(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=tokens, min_frequency=2, show_progress=False, initial_alphabet=alphabet)
    model.train_from_iterator(texts, trainer, length=len(texts))
    return list(model.get_vocab())


def train_rustbpe(texts: Sequence[str], tokens: int) -> list[tuple[bytes, int]]:
    import rustbpe

    model = rustbpe.Tokenizer()
    model.train_from_iterator(iter(texts), tokens, pattern=PATTERN)
    return model.get_mergeable_ranks()


def trainers(texts: Sequence[str], vocab_size: int) -> dict[str, Callable[[], Callable[[], object]]]:
    def train(threads: int) -> Tokenizer:
        return Tokenizer.train([text.encode() for text in texts], vocab_size, threads)

    return {
        "golfcore, 1 thread": lambda: lambda: train(1),
        "golfcore, all cores": lambda: lambda: train(0),
        "Hugging Face, all cores": lambda: lambda: train_huggingface(texts, vocab_size - FIRST_BYTE),
        "rustbpe, all cores": lambda: lambda: train_rustbpe(texts, vocab_size - FIRST_BYTE),
    }


def check_training(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Return the share of our tokens that each library also learns from the same text."""
    byte_of = huggingface_bytes()
    tokens = tokenizer.vocab_size - FIRST_BYTE
    ours = {tokenizer.token(i) for i in range(FIRST_BYTE, tokenizer.vocab_size)}
    learned = {
        "Hugging Face": {bytes(byte_of[c] for c in token) for token in train_huggingface(texts, tokens)},
        "rustbpe": {bytes(token) for token, _ in train_rustbpe(texts, tokens)},
    }
    shares = {name: len(ours & theirs) / len(ours) for name, theirs in learned.items()}
    for name, share in shares.items():
        if share < 0.99:
            sys.exit(f"{name} learns only {share:.1%} of our tokens: not the same work; nothing was timed")
    return shares


def huggingface_bytes() -> dict[str, int]:
    """Return the printable characters that stand for bytes in Hugging Face's vocabularies."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


def results(case: str, seconds: dict[str, list[float]], megabytes: float) -> list[record.Result]:
    found = []
    for name, times in seconds.items():
        for percent in (20, 50, 80):
            value = float(np.percentile(times, percent))
            found.append(record.Result(case, name, f"time p{percent}", value, "s"))
        found.append(record.Result(case, name, "speed p50", megabytes / float(np.median(times)), "MB/s"))
    return found


def print_table(case: str, seconds: dict[str, list[float]], megabytes: float, baselines: Sequence[str]) -> None:
    print(f"\n{case}")
    heads = "".join(f"{f'x {name}':>26}" for name in baselines)
    print(f"{'':28}{'p20 s':>9}{'p50 s':>9}{'p80 s':>9}{'MB/s':>9}{heads}")
    for name, times in seconds.items():
        p20, p50, p80 = np.percentile(times, [20, 50, 80])
        ratios = "".join(f"{np.median(seconds[b]) / p50:26.2f}" for b in baselines)
        print(f"{name:28}{p20:9.4f}{p50:9.4f}{p80:9.4f}{megabytes / p50:9.1f}{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help='a .jsonl file, {"text": ...} a line')
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=100_000_000, help="bytes of text to use at most")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--save", action="store_true", help="add the results to bench/results/tokenizer.csv")
    args = parser.parse_args()

    def tick(note: str) -> None:
        print(note, file=sys.stderr)

    texts = read(args.text, args.limit)
    size = sum(len(text.encode()) for text in texts)
    tokenizer = Tokenizer.train([text.encode() for text in texts], args.vocab_size)
    tick("checking: ids against tiktoken, learned tokens against the other trainers")
    check_encoding(tokenizer, texts)
    shares = check_training(tokenizer, texts)

    what = f"{size / 1e6:.1f} MB in {len(texts)} documents, vocabulary {args.vocab_size}"
    cases = {
        f"encode {what}": (encoders(tokenizer, texts), ("tiktoken, 1 thread",)),
        f"train {what}": (trainers(texts, args.vocab_size), ("Hugging Face, all cores", "rustbpe, all cores")),
    }
    found: list[record.Result] = []
    if not args.json:
        print(f"{record.machine()}; {record.versions(PACKAGES)}; commit {record.commit()}")
        print("tokens that are learned too:", ", ".join(f"{name} {share:.2%}" for name, share in shares.items()))
    for case, (candidates, baselines) in cases.items():
        seconds = measure(candidates, args.rounds, tick)
        found += results(case, seconds, size / 1e6)
        if not args.json:
            print_table(case, seconds, size / 1e6, baselines)
    if args.json:
        rows = [{name: getattr(r, name) for name in ("case", "backend", "metric", "value", "unit")} for r in found]
        head = {"machine": record.machine(), "versions": record.versions(PACKAGES), "commit": record.commit()}
        print(json.dumps({**head, "shared_tokens": shares, "results": rows}))
    if args.save:
        tick(f"saved to {record.append('tokenizer', found, PACKAGES).relative_to(record.ROOT)}")


if __name__ == "__main__":
    main()
