"""``golfcore train``, ``quantize``, ``pack`` and ``eval``: the stages of a run, one command each."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from golfcore.cli.options import Bytes, Tokens, Window
from golfcore.cli.output import err, out, plain_table, print_json, print_table, progress
from golfcore.cli.run import Sets, SkipInvalid, Texts, resumable, with_skip_invalid
from golfcore.config import parse_set
from golfcore.errors import UsageError
from golfcore.hints import command
from golfcore.ranges import SECONDS, UNIX_TIME, WINDOW
from golfcore.run_folder import ARTIFACT, CHECKPOINT, CONFIG, METRICS, QUANTIZED
from golfcore.training.next_step import data_words


def train(
    recipe: str = "pocket",
    *,
    text: Texts = (),
    skip_invalid: SkipInvalid = False,
    data: Path | None = None,
    set_: Sets = (),
    runs: Path = Path("runs"),
    run_id: str = "",
    resume: Path | None = None,
    json: bool = False,
) -> None:
    """Train a recipe and write checkpoint.pt into the run's folder.

    Parameters
    ----------
    recipe
        A recipe that comes with golfcore, or a .toml file.
    data
        A folder of tokens to use instead of text.
    runs
        The folder in which the run's folder is made.
    run_id
        The name of the run's folder; default: recipe and time.
    resume
        The folder of an interrupted run, which goes on from its last checkpoint.
    json
        Print one JSON document instead of lines.
    """
    from golfcore.api import train_wish
    from golfcore.pipeline.start import Wish
    from golfcore.training.runlog import read_metrics

    sets = with_skip_invalid(set_, skip_invalid)
    run_dir = train_wish(Wish(recipe, text, data, {}, sets, os.environ, runs, run_id, resume), progress, resumable)
    if run_dir is None:  # the first rank has it
        return
    last = [row for row in read_metrics(run_dir / METRICS) if row["kind"] == "train"][-1]
    if json:
        print_json({"run": run_dir.name, "run_dir": str(run_dir), "checkpoint": str(run_dir / CHECKPOINT), **last})
    else:
        out.print(f"{run_dir}: step {last['step']}, train loss {last['train_loss']:.4f}", markup=False)
        out.print(f"next: {command('quantize', run_dir)}", markup=False)


def quantize(
    run: Path,
    *,
    fit: Bytes = 0,
    margin: Bytes = 0,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    text: Texts = (),
    set_: Sets = (),
    json: bool = False,
) -> None:
    """Quantize a trained run, into quantised.pt and quantised.json in its folder; the checkpoint stays as it is.

    Parameters
    ----------
    run
        The run's folder.
    fit
        Choose the step size of each tensor so that the packed file ends at most 0.1 % below this many bytes, never
        above; implies quant.method = gptq.
    margin
        Bytes below --fit that stay free.
    dry_run
        Print the plan of --fit (default: the track's cap) and write nothing.
    text
        Calibration text to use instead of training text.
    json
        Print one JSON document instead of a table.
    """
    from golfcore import api

    changes = dict(parse_set(option) for option in set_)
    result = api.quantize(
        run, fit=fit, margin=margin, changes=changes, text=text, dry_run=dry_run, progress=progress
    )  # fmt: skip
    if not result:  # the first rank has it
        return
    plan = result if dry_run else result["plan"]
    if json:
        head = {"run": run.name} if dry_run else {"run": run.name, "quantised": str(run / QUANTIZED)}
        print_json(head | ({"plan": plan} if dry_run else result))
        return
    if plan is not None:
        print_table(_plan_table(plan))
    if not dry_run:
        print_table(_error_table(result))
        out.print(_measured_on(result["total"]), markup=False)
        out.print(f"next: {command('pack', run)}", markup=False)


def _plan_table(plan: dict[str, Any]) -> Table:
    numbers = ("weights", "k", "bits", "step / sigma", "bytes", "KL x 1000")
    table = plain_table("tensor", "role", *numbers, right=numbers)
    for row in plan["tensors"]:
        table.add_row(
            row["name"], row["role"], f"{row['weights']:,}", f"{row['k']:.2f}", str(row["bits"]), f"{row['step']:.3f}",
            f"{row['bytes']:,}", f"{1000 * row['kl']:.3f}",
        )  # fmt: skip
    table.add_row("code, tokenizer, the rest", "", "", "", "", "", f"{plan['fixed_bytes']:,}", "")
    of_cap = f"{plan['bytes']:,} of {plan['cap']:,}"
    table.add_row("in all", f"{plan['states']} states", "", "", "", "", of_cap, f"{1000 * plan['kl']:.3f}")
    return table


def _error_table(result: dict[str, Any]) -> Table:
    numbers = ("weights", "bits", "states", "error dB", "Hessian dB", "KL x 1000", "bits per byte")
    table = plain_table("tensor", "role", *numbers, right=numbers)

    def cells(row: dict[str, Any]) -> list[str]:
        kl, bpb = row["kl"], row["bpb"]
        return [
            _number(row.get("error_db")), _number(row["hessian_db"]), "" if kl is None else f"{1000 * kl:.3f}",
            "" if bpb is None else f"{bpb:.4f}",
        ]  # fmt: skip

    for row in result["tensors"]:
        states = str(row["states"] or "")
        table.add_row(row["name"], row["role"], f"{row['params']:,}", str(row["bits"]), states, *cells(row))
    total = result["total"]
    table.add_row("in all", "", f"{total['params']:,}", "", "", *cells(total))
    return table


def _measured_on(total: dict[str, Any]) -> str:
    """Return a line on the tokens that the last columns of the table were measured on."""
    tokens = f"{total['tokens']:,} tokens of calibration text; Hessians on {total['calibration_tokens']:,}"
    before = "" if total["bpb_before"] is None else f"{total['bpb_before']:.4f} bits per byte before, "
    return f"each tensor quantized alone, and all; {before}on {tokens}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def pack(
    source: Path,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    from_: Annotated[Literal["run", "folder", "safetensors"] | None, Parameter(name="--from")] = None,
    coder: Literal["fast", "smallest"] | None = None,
    json: bool = False,
) -> None:
    """Pack a quantized run, or files that unpack wrote, into a .golf file.

    Parameters
    ----------
    source
        The folder of a run, an unpacked folder, or a .safetensors file.
    output
        The file to write; default: model.golf in the run's folder.
    from_
        The kind of source: run, folder or safetensors; default: found out from its content.
    coder
        smallest saves a few hundredths of a percent and decodes slower; default: the run's quant.coder, else fast.
    json
        Print one JSON document instead of a line.
    """
    from golfcore import api

    is_run = (source / CONFIG).is_file() if from_ is None else from_ == "run"
    if not is_run:
        if output is None:
            raise UsageError(
                f"{source} is not a run folder; to pack files that unpack wrote, name the output: -o model.golf"
            )
        if from_ is not None and source.exists() and source.is_dir() != (from_ == "folder"):
            raise UsageError(f"--from {from_}: {source} is {'a folder' if source.is_dir() else 'a file'}")
        from golfcore.cli.artifact import pack_unpacked

        pack_unpacked(source, output, coder=coder or "fast", json=json)
        return
    target = output or source / ARTIFACT
    packed = api.pack(source, target, coder=coder, progress=progress)
    if json:
        print_json(packed)
    else:
        size = packed["bytes"]
        out.print(f"{target}: {size['file']:,} bytes of {size['cap']:,}, {size['free']:,} free", markup=False)
        out.print(f"next: {command('eval', target, *data_words(source))}", markup=False)


def evaluate(
    artifact: Path | None = None,
    *,
    data: Path | None = None,
    text: Texts = (),
    tokenizer: Path | None = None,
    context: Window = 0,
    stride: Annotated[int | Literal["auto"] | None, Parameter(validator=WINDOW)] = None,
    budget: Annotated[float | None, Parameter(validator=SECONDS)] = None,
    batch_tokens: Tokens = 0,
    adapt: Literal["none", "mix"] | None = None,
    replay: Path | None = None,
    began: Annotated[float, Parameter(show=False, validator=UNIX_TIME)] = 0.0,
    json: bool = False,
) -> int:
    """Score a packed model in bits per byte over the whole validation text; under torchrun the ranks share the work.

    Parameters
    ----------
    artifact
        A .golf file; with --replay only if it has moved.
    data
        A folder of tokens, of which the validation split is scored.
    text
        Text to score whole instead, with the model's own tokenizer.
    tokenizer
        A SentencePiece .model or a .bpe file; needed only for contest shards.
    context
        Tokens per window; default: as the artifact says.
    stride
        Tokens scored per window after the first, or auto for the finest that ends in time; default: the artifact's.
    budget
        Seconds that the evaluation may take, 0 for no limit; default: as the artifact says.
    batch_tokens
        Tokens per forward pass, 0 for a size that is fast; changes speed and memory, not the score.
    adapt
        mix: count scored tokens, and mix the counts into the model's distributions; default: as the artifact says.
    replay
        A score.json: score again what it scored, in the same windows, and compare; exit 1 if the score is another one.
    began
        The reading of time.monotonic() at which the budget began; default: now. golfcore run gives it.
    json
        Print one JSON document instead of a table.
    """
    from golfcore import api

    if replay is not None:
        given = {"--context": context, "--stride": stride, "--budget": budget, "--adapt": adapt}
        return _replay(replay, artifact, data, text, tokenizer, [name for name in given if given[name]], json=json)
    if artifact is None:
        raise UsageError("give the file to score: golfcore eval FILE.golf --text FILE..., or --replay score.json")
    # All processes of a machine share this clock, and unlike the wall's it never jumps.
    started = time.perf_counter() - (max(0.0, time.monotonic() - began) if began else 0.0)
    result = api.score(
        artifact, data=data, text=text, tokenizer=tokenizer or "", context=context, stride=stride, budget_s=budget,
        batch_tokens=batch_tokens, began=started, adapt=adapt, tell=_say, progress=progress,
    )  # fmt: skip
    if result:
        print_json(result) if json else out.print(_score_table(result))
    return 0


def _replay(
    record: Path, artifact: Path | None, data: Path | None, text: Texts, tokenizer: Path | None, given: list[str], *,
    json: bool,
) -> int:  # fmt: skip
    from golfcore.pipeline.replay import replay

    if given:
        raise UsageError(f"{given[0]} with --replay: a replay takes it from the record")
    found = replay(
        record, artifact=artifact, data=data, text=text, tokenizer=tokenizer, progress=progress, tell=_say
    )  # fmt: skip
    if not found:  # the first rank has it
        return 0
    if json:
        print_json(found)
    else:
        for name in ("recorded", "replayed"):
            out.print(f"{name}: {found[name]['val_bpb']:.8f} bits per byte", markup=False)
        out.print(found["verdict"], markup=False)
    return 0 if found["same"] else 1


def _say(line: str) -> None:
    err.print(line, markup=False, soft_wrap=True)


def _strides_text(result: dict[str, Any]) -> str:
    taken = result["pace"]["strides"] if result["pace"] else [[1, result["stride"]]]
    return ", ".join(f"{stride}" + (f" from token {token:,} on" if token > 1 else "") for token, stride in taken)


def _score_table(result: dict[str, Any]) -> Table:
    table = Table(title=result["artifact"], show_header=False)
    table.add_row("bits per byte", Text(f"{result['val_bpb']:.8f}", "bold"))
    table.add_row("loss", f"{result['val_loss']:.6f} nats/token")
    table.add_row("scored", f"{result['tokens']:,} tokens, {result['bytes']:,} bytes of text, each token once")
    if result.get("split"):
        table.add_row("split", result["split"])
    table.add_row("windows", f"{result['context']} tokens, {_strides_text(result)} scored")
    if result["adapt"] == "mix":
        table.add_row("adapted", f"counts of scored tokens mixed in; mass probe passed ({result['mass_error']:.1e})")
    table.add_row("artifact", f"{result['artifact_bytes']:,} bytes, sha256 {result['artifact_sha256'][:16]}")
    same = "is the code that scored it" if result["code_matches"] else Text("differs from ours", "yellow")
    table.add_row("code in it", same)
    table.add_row("future-flip probe", f"passed ({result['future_flip_nats']:.1e} nats)")
    table.add_row("seconds", f"{result['eval_s']:.1f}")
    return table
