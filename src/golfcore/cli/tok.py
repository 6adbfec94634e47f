"""``golfcore tok``: train a tokenizer, use it, and check that it loses nothing."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from golfcore.cli.options import Threads, Vocab
from golfcore.cli.output import out, print_json, progress
from golfcore.errors import InputError, UsageError

if TYPE_CHECKING:
    from golfcore.tokenizer import Tokenizer

app = App(name="tok", help="Train byte-level BPE tokenizers, encode, decode, audit.")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document instead of text.")]
TokenizerFile = Annotated[Path, Parameter(name=["--tokenizer", "-t"], help="A file that `tok train` wrote.")]
Text = Annotated[Path, Parameter(help=".txt and .jsonl files of documents, plain, .gz or .zst, or folders of them.")]
Source = Annotated[str, Parameter(allow_leading_hyphen=True)]  # for -
SkipInvalid = Annotated[bool, Parameter(negative="", help="Leave out documents that are no text, and count them.")]


@app.command
def train(
    *texts: Text,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The tokenizer file to write.")],
    vocab_size: Annotated[Vocab, Parameter(help="Size of the vocabulary, from 260 (bytes only) to 65536.")],
    skip_invalid: SkipInvalid = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Learn a vocabulary from text and write it to a file."""
    from golfcore.data.text import read_documents
    from golfcore.disk import check_target
    from golfcore.tokenizer import Tokenizer

    check_target(output)
    with progress("read"):
        docs = list(read_documents(_given(texts), skip_invalid=skip_invalid))
    start = time.perf_counter()
    tokenizer = Tokenizer.train(docs, vocab_size, threads)
    seconds = time.perf_counter() - start
    tokenizer.save(output)
    found = {
        "path": str(output),
        "vocab_size": tokenizer.vocab_size,
        "sha256": tokenizer.sha256,
        "documents": len(docs),
        "text_bytes": sum(map(len, docs)),
        "train_s": round(seconds, 4),
    }
    if json:
        print_json(found)
    else:
        _print_rows(found)


@app.command
def encode(source: Source, /, *, tokenizer: TokenizerFile, json: Json = False) -> None:
    """Print the ids of one document's bytes, without BOS.

    Parameters
    ----------
    source
        A file, encoded whole, or - for standard input.
    """
    loaded = _load(tokenizer)
    content = _read(source)
    ids = loaded.encode(content).tolist()
    if json:
        print_json({"ids": ids, "tokens": len(ids), "bytes": len(content)})
    else:
        sys.stdout.write(" ".join(map(str, ids)) + "\n")


@app.command
def decode(source: Source, /, *, tokenizer: TokenizerFile, json: Json = False) -> None:
    """Write the exact bytes that ids stand for; special ids stand for none.

    Parameters
    ----------
    source
        A file of ids in decimal with white space between them, or - for standard input.
    """
    loaded = _load(tokenizer)
    words = _read(source).removeprefix(b"\xef\xbb\xbf").split()
    if bad := next((word for word in words if not (word.isdigit() and len(word) <= 5)), None):
        raise InputError(f"{source}: {bad[:20]!r} is no id; give decimal numbers, as `tok encode` prints")
    ids = [int(word) for word in words]
    content = loaded.decode(ids)
    if json:
        text = content.decode(errors="replace")
        print_json({"text": text, "utf8": text.encode() == content, "bytes": len(content), "tokens": len(ids)})
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()


@app.command
def audit(
    *texts: Text,
    tokenizer: TokenizerFile,
    skip_invalid: SkipInvalid = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Check on text that every document comes back exactly and that bytes are counted right; exit 1 if not."""
    from golfcore.data.text import read_documents
    from golfcore.tokenizer import audit as run

    loaded = _load(tokenizer)
    with progress("audit"):
        result = run(loaded, read_documents(_given(texts), skip_invalid=skip_invalid), threads)
    megabytes = result.text_bytes / 1e6
    found = {
        "ok": result.ok,
        "vocab_size": loaded.vocab_size,
        **dataclasses.asdict(result),
        "encode_s": round(result.encode_s, 4),
        "decode_s": round(result.decode_s, 4),
        "bytes_per_token": round(result.bytes_per_token, 4),
        "encode_mb_s": round(megabytes / result.encode_s, 1) if result.encode_s else None,
        "decode_mb_s": round(megabytes / result.decode_s, 1) if result.decode_s else None,
    }
    if json:
        print_json(found)
    else:
        _print_rows(found)
    if not result.ok:
        raise SystemExit(1)


def _load(path: Path) -> Tokenizer:
    from golfcore.tokenizer import Tokenizer

    return Tokenizer.load(path)


def _given(texts: tuple[Path, ...]) -> list[Path]:
    if not texts:
        raise UsageError("no text given; name one or more .txt or .jsonl files, or folders of them")
    return list(texts)


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from error


def _print_rows(rows: dict[str, object]) -> None:
    from rich.table import Table

    table = Table("", "", show_header=False)
    table.columns[1].overflow = "fold"
    for name, value in rows.items():
        text = f"{value:,}" if type(value) in (int, float) else str(value)
        table.add_row(name.replace("_", " "), text)
    out.print(table)
