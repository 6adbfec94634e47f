"""``golfcore data``: fetch text and shards, prepare them, verify them, remove leftovers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from golfcore.cli.options import Threads, Vocab
from golfcore.cli.output import out, print_json, progress, styled
from golfcore.errors import UsageError
from golfcore.ranges import SOME_PART, SOME_SIZE

if TYPE_CHECKING:
    from golfcore.data.manifest import Manifest

app = App(name="data", help="Fetch, prepare and verify the text a model is trained and scored on; clean the cache.")
get = App(name="get", help="Download text or the contest's token shards.")
app.command(get)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document instead of a table.")]


@get.command
def text(*, json: Json = False) -> None:
    """Fetch the default text (13 MB of news articles) into the cache and print its path."""
    from golfcore.data.default_text import default_text

    with progress("text") as tick:
        path = default_text(tick)
    if json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        out.print(str(path), markup=False)


@get.command
def fineweb(
    *,
    variant: str = "sp1024",
    shards: Annotated[int, Parameter(validator=SOME_SIZE)] = 80,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("data"),
    json: Json = False,
) -> None:
    """Download the contest's FineWeb shards: all validation shards and the first training shards.

    Parameters
    ----------
    variant
        The tokenization: byte260, sp1024, sp4096, sp8192 or caseops.
    shards
        Number of training shards, each of 100 million tokens and 200 MB.
    output
        Folder for datasets/, tokenizers/ and manifest.json.
    """
    from golfcore.data.hub import fetch_fineweb

    with progress("fineweb") as tick:
        folder = fetch_fineweb(variant, output, shards=shards, tick=tick)
    if json:
        print_json({"path": str(folder)})
    else:
        out.print(str(folder), markup=False)


@app.command
def prepare(
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    text: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    tokenizer: Path | None = None,
    vocab_size: Vocab = 1024,
    val_fraction: Annotated[float, Parameter(validator=SOME_PART)] = 0.07,
    skip_invalid: Annotated[bool, Parameter(negative="")] = False,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Turn text into a folder of token shards with its tokenizer, validation text and manifest.

    Parameters
    ----------
    output
        Folder to make; it must not exist yet, or be empty; default: in the cache, where a run on this text finds it.
    text
        .txt files, .jsonl files (one {"text": ...} per line), plain, .gz or .zst, or folders of them; default: the
        default text.
    tokenizer
        A tokenizer file; default: one is trained on the training documents.
    vocab_size
        Vocabulary of the tokenizer that is trained.
    val_fraction
        Share of the documents kept for validation, chosen by their hash.
    skip_invalid
        Leave out documents that are no text (not UTF-8, no JSON line with a text, half of a surrogate pair) and count
        them; otherwise the first one is an error.
    threads
        Number of threads, 0 for all cores.
    """
    from golfcore.data.cache import cached_prepare
    from golfcore.data.default_text import default_text
    from golfcore.data.prepare import load_prepared
    from golfcore.data.prepare import prepare as run
    from golfcore.tokenizer import Tokenizer

    if output is None and tokenizer is not None:
        raise UsageError("--tokenizer: the cache holds texts with tokenizers of their own; name a folder with -o")
    loaded = None if tokenizer is None else Tokenizer.load(tokenizer)
    with progress("prepare") as tick:
        paths = text or [default_text(tick)]
        if output is None:
            output = cached_prepare(
                paths, vocab_size=vocab_size, val_fraction=val_fraction, skip_invalid=skip_invalid, threads=threads,
                tick=tick,
            )  # fmt: skip
            manifest = load_prepared(output).manifest
        else:
            manifest = run(
                paths, output, vocab_size=vocab_size, tokenizer=loaded, val_fraction=val_fraction,
                skip_invalid=skip_invalid, threads=threads, tick=tick,
            )  # fmt: skip
    if json:
        print_json({"path": str(output), **manifest.as_tree()})
        return
    _print_splits(output, manifest)


def _print_splits(output: Path, manifest: Manifest) -> None:
    from rich.table import Table

    table = Table("split", "documents", "bytes", "tokens", "bytes/token", "shards")
    for name in ("train", "val"):
        split = manifest.split(name)
        counts = (f"{n:,}" for n in (split.docs, split.bytes, split.tokens))
        table.add_row(name, *counts, f"{split.bytes / (split.tokens - split.docs):.3f}", str(len(split.shards)))
    out.print(table)
    doubles = f"{manifest.duplicates} doubles dropped"
    out.print(f"{output}: {manifest.vocab_size} tokens in the vocabulary, {doubles}", markup=False)


@app.command
def verify(
    folder: Path, /, *, vocab_size: Annotated[int | None, Parameter(validator=SOME_SIZE)] = None, json: Json = False
) -> None:
    """Prove that a folder of tokens is sound and that no validation document is in training; exit 1 if not.

    Parameters
    ----------
    folder
        A prepared folder, or a folder of contest shards (data/datasets/fineweb10B_...).
    vocab_size
        Every id must be below it; needed only if neither a manifest nor the folder's name has it.
    """
    from golfcore.data.verify import verify as run

    with progress("verify") as tick:
        checks = run(folder, vocab_size=vocab_size, tick=tick)
    ok = all(check.ok for check in checks)
    if json:
        print_json({"path": str(folder), "ok": ok, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        from rich.table import Table

        table = Table("check", "", "found")
        for check in checks:
            table.add_row(check.name, styled(("ok", "green") if check.ok else ("FAIL", "red")), check.detail)
        out.print(table)
    if not ok:
        raise SystemExit(1)


@app.command
def clean(
    *folders: Path,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Remove what killed processes left in the cache: half-made folders and files. Nothing that is in use is touched.

    Parameters
    ----------
    folders
        Folders to clean too, such as runs or one in which text was prepared.
    all_
        Also remove the texts that were prepared in the cache; the next run on one of them prepares it again.
    dry_run
        Only list what would be removed.
    """
    from golfcore.data.leftovers import leftovers, remove

    found = leftovers(folders, prepared=all_)
    kept = {item.path: item.used or ("" if dry_run else remove(item)) for item in found}
    freed = [item for item in found if not kept[item.path]]
    size = sum(item.bytes for item in freed)
    if json:
        rows = [{"path": str(item.path), "bytes": item.bytes, "kept": kept[item.path]} for item in found]
        print_json({"removed": not dry_run, "bytes": size, "leftovers": rows})
        return
    verb = "would remove" if dry_run else "removed"
    for item in found:
        said = f"kept, {kept[item.path]}" if kept[item.path] else verb
        out.print(f"{said}: {item.path} ({item.bytes / 1e6:,.1f} MB)", markup=False)
    out.print(f"{verb} {len(freed)} of {len(found)} leftovers, {size / 1e6:,.1f} MB", markup=False)
