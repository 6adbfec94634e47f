"""``golfcore ablate``: measure the effect of each part of a recipe, with confidence intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from golfcore.cli import output
from golfcore.cli.options import Count
from golfcore.cli.run import Sets, Texts
from golfcore.ranges import SEED, Range

if TYPE_CHECKING:
    from golfcore.bench.ablation import Bench, Worth

Words = Annotated[Sequence[str], Parameter(negative=(), consume_multiple=True)]


def ablate(
    recipe: str = "pocket_frontier",
    /,
    *,
    text: Texts = (),
    data: Path | None = None,
    set_: Sets = (),
    seeds: Annotated[Sequence[int], Parameter(negative=(), consume_multiple=True, validator=SEED)] = (1337, 1338, 1339),
    parts: Words | None = None,
    steps: Count = 0,
    held_out: Annotated[int, Parameter(validator=Range(2, 10**12))] = 200_000,
    save: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a recipe whole and without each of its parts in turn, and show the effect of every part.

    Runs are packed and scored from the packed bytes, on documents held out from the training text; the validation text
    is not touched. Rows saved before, of the same recipe, text and limit, are not run again.

    Args:
        recipe: A recipe that comes with golfcore, or a .toml file.
        data: A folder of tokens to use instead of text.
        seeds: Seeds; each part is run once with each.
        parts: Parts to leave out in turn; () for the whole recipe alone; default: every part that the recipe has.
        steps: Stop each run after so many steps instead of by the clock. The time that a part costs then does not
            count, and the machine may be busy. 0: by the recipe's clock.
        held_out: About how many tokens at the end of the training text are scored instead of trained on.
        save: Append each run to this .csv file, and go on from the rows in it.
        json: Print one JSON document instead of the table.
    """
    from golfcore.bench import ablation

    bench = _open(recipe, text, data, set_, steps, held_out)
    chosen = [ablation.WHOLE, *(ablation.parts_of(bench.recipe) if parts is None else parts)]
    for part in chosen:
        ablation.without(bench.recipe, part)  # an impossible one is refused before any training
    key = ablation.identity(bench.recipe), bench.text.sha256[:12], bench.limit()
    known = ablation.read(save) if save is not None and save.exists() else []
    trials = [t for t in known if (t.config, t.data, t.limit) == key]
    wanted = [(part, seed) for seed in seeds for part in chosen]
    missing = [w for w in wanted if w not in {(t.part, t.seed) for t in trials}]
    for i, (part, seed) in enumerate(missing):
        with output.progress(f"{i + 1}/{len(missing)} {part}, seed {seed}") as tick:
            trial = bench.trial(part, seed, tick)
        trials.append(trial)
        if save is not None:
            ablation.append(save, trial)
    rows = ablation.worths([t for t in trials if (t.part, t.seed) in set(wanted)])
    if json:
        output.print_json([dataclasses.asdict(row) for row in rows])
    else:
        _print(bench, rows)
    return 0


def _open(
    recipe: str, text: Sequence[Path], data: Path | None, sets: Sequence[str], steps: int, held_out: int
) -> Bench:
    import os

    from golfcore.bench.ablation import Bench, hold_out
    from golfcore.data.tokens import open_run, prepare_data
    from golfcore.errors import UsageError
    from golfcore.ops.memory import keep_freed_memory
    from golfcore.recipes import load_recipe
    from golfcore.tokenizer import Tokenizer

    limit = ["track.train_s=0", f"train.iterations={steps}"] if steps else []
    config = load_recipe(recipe, environment=os.environ, sets=[*sets, *limit], data=data).config
    with output.progress("data") as tick:
        config = prepare_data(config, text, tick)
    config, tokens = open_run(config)
    if not isinstance(tokens.tokenizer, Tokenizer):
        raise UsageError("ablate needs text, or data prepared from text: a contest table cannot count held-out bytes")
    keep_freed_memory()
    source, scored = hold_out(tokens.shards("train"), tokens.tokenizer.token_bytes, held_out)
    return Bench(config, tokens.vocab_size, tokens.tokenizer.to_bytes(), source, scored)


def _print(bench: Bench, rows: Sequence[Worth]) -> None:
    table = output.plain_table(
        "without", "seeds", "bit/byte", "worth", "95 %", "bytes", "ms/step",
        right=("seeds", "bit/byte", "worth", "95 %", "bytes", "ms/step"),
    )  # fmt: skip
    for i, row in enumerate(rows):
        half = "-" if row.half is None else f"± {row.half:.4f}"
        worth = "-" if i == 0 else f"{row.loss:+.4f}"
        name = "nothing" if i == 0 else row.part
        table.add_row(name, str(row.seeds), f"{row.bpb:.4f}", worth, half, f"{row.bytes:,.0f}", f"{row.step_ms:.0f}")
    output.print_table(table)
    output.out.print(
        f"\n{bench.recipe.name}, {bench.limit()} per run, scored on {len(bench.text.tokens):,} held-out tokens from "
        "the packed bytes; worth: bits per byte lost without the part.",
        markup=False,
    )
