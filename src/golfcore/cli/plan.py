"""``golfcore plan``: predict parameters, bytes, time, memory and dollars of a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from golfcore.cli.output import err, out, plain_table, print_json, print_table, styled
from golfcore.cli.run import Sets
from golfcore.ranges import FACTOR, Range
from golfcore.recipes import load_recipe

if TYPE_CHECKING:
    from golfcore.config import RecipeConfig
    from golfcore.plan.timing import Fit

GPUS = Range(0, 4096)  # 0: this machine
TRIAL_SECONDS = Range(0, 600, whole=False, above=True, unit="seconds")
NUMBERS = ("params", "bytes", "from", "to", "ms", "compute", "exposed", "steps", "tokens", "MFU", "$", "GPUs", "x")


def plan(
    recipe: str = "pocket",
    *,
    gpus: Annotated[int, Parameter(validator=GPUS)] = 0,
    price: Annotated[float | None, Parameter(validator=FACTOR)] = None,
    attention: Literal["sdpa", "fa3"] = "sdpa",
    set_: Sets = (),
    data: Path | None = None,
    seconds: Annotated[float, Parameter(validator=TRIAL_SECONDS)] = 5.0,
    fit: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Predict parameters, bytes, operations, memory, time and dollars of a run, each marked by how it is known.

    Parameters
    ----------
    recipe
        A recipe that comes with golfcore, or a .toml file.
    gpus
        Number of H100s to predict for; 1 to 64 are simulated too. Default: measure this machine instead.
    price
        Dollars per GPU-hour.
    attention
        The attention kernel assumed on H100s: PyTorch's, or FlashAttention-3.
    data
        A folder of tokens, for their vocabulary and tokenizer.
    seconds
        Seconds of measuring.
    fit
        Show, instead of a plan, the data of the time and memory models and their errors on entries kept out of the fit.
    json
        Print one JSON document instead of tables.
    """
    if fit:
        _show_fit(json)
        return
    from golfcore.plan.outline import make_plan

    config = load_recipe(recipe, environment=os.environ, sets=set_, data=data).config
    vocab_size, tokenizer = _tokens(config, data is not None)
    if not gpus:
        err.print(f"measuring {config.name} here for about {seconds:.0f} s", markup=False)
    found = make_plan(
        config, gpus=gpus, price=price, attention=attention, seconds=seconds, vocab_size=vocab_size, tokenizer=tokenizer
    )
    if json:
        print_json(found)
    else:
        _show(found, config)


def _tokens(config: RecipeConfig, wanted: bool) -> tuple[int, bytes | None]:
    """Return vocabulary and tokenizer of the recipe's tokens; if they are not at hand, 0 and the expected tokenizer."""
    from golfcore.data.tokens import open_tokens
    from golfcore.errors import GolfError
    from golfcore.tokenizer import Tokenizer

    if not config.data.path:
        return 0, None
    try:
        tokens = open_tokens(config.data.path, config.data.tokenizer)
    except GolfError:
        if wanted:
            raise
        return 0, b"" if config.data.tokenizer.endswith(".model") else None
    return tokens.vocab_size, tokens.tokenizer.to_bytes() if isinstance(tokens.tokenizer, Tokenizer) else b""


def _show(plan: dict[str, Any], config: RecipeConfig) -> None:
    artifact, total = plan["artifact"], plan["parameters"]["total"]
    out.print(styled((plan["recipe"], "bold"), f"   {total:,} parameters, vocabulary {plan['vocab_size']:,}"))
    out.print()
    table = plain_table("role", "kind", "params", "bytes", "from", "to", right=NUMBERS)
    for row in artifact["roles"]:
        cells = (f"{row[key]:,}" for key in ("expected", "low", "high"))
        table.add_row(row["group"], row["kind"], f"{row['params']:,}" if row["params"] else "", *cells)
    table.add_row("all", "", *(f"{n:,}" for n in (total, artifact["expected"], artifact["low"], artifact["high"])))
    print_table(table)
    verdict = {"yes": "fits", "no": "does not fit", "perhaps": "may fit"}[artifact["fits"]]
    free = artifact["cap"] - artifact["expected"]
    how = f", at steps of {artifact['step']:.3f} standard deviations" if artifact["step"] else ""
    out.print(f"{verdict} into {artifact['cap']:,} bytes ({free:+,} free); bytes are counted on Gaussian rows{how}\n")
    facts = plain_table("", "", "")
    facts.show_header = False
    for stage in plan["operations"]["stages"]:
        span = f"{stage['share']:.0%} of the run: " if len(plan["operations"]["stages"]) > 1 else ""
        facts.add_row(
            "operations",
            f"{span}{stage['flops_a_step'] / 1e12:,.3g} TFLOP per step of {stage['batch_tokens']:,} tokens, "
            f"{stage['flops_a_token'] / 1e6:,.1f} MFLOP per token",
            plan["operations"]["basis"],
        )
    facts.add_row("state", f"{plan['state']['bytes'] / 1e6:,.1f} MB of weights, gradients, moments", "counted")
    if "run" in plan:
        for name, text, basis in _run_facts(plan["run"], config):
            facts.add_row(name, text, basis)
    print_table(facts)
    if "scaling" in plan:
        _show_scaling(plan["scaling"])
    for note in plan["notes"]:
        out.print(f"note: {note}", style="dim", markup=False)


def _run_facts(run: dict[str, Any], config: RecipeConfig) -> list[tuple[str, str, str]]:
    """Return rows of ``(what, value, basis)`` of the run on its device."""
    basis, where = run["basis"], f"{run['gpus']} x {run['device']}" if run["device"] == "H100" else run["device"]
    between = f" ({run['ms_low']:,.1f} to {run['ms_high']:,.1f})" if "ms_low" in run else ""
    memory = f"{run['memory_bytes'] / 2**30:,.2f} GiB at the peak"
    if "memory_spread" in run:
        memory += f", +- {run['memory_spread']:.0%}"
    limit = f"{config.steps_s:,.0f} s" if config.steps_s else "no limit"
    if config.steps_s and config.quant.reads_training_text and config.quant.reserve_s:
        limit += f" of {config.track.train_s:,.0f} s; the rest is for Hessians"
    facts = [
        ("on", where, ""),
        ("a step", f"{run['ms_a_step']:,.1f} ms{between}", basis),
        ("in the budget", f"{run['steps']:,} steps, {run['tokens'] / 1e6:,.1f} M tokens in {limit}", basis),
        ("MFU", "-" if run["mfu"] is None else f"{run['mfu']:.1%} of {run['peak_flops'] / 1e12:,.2f} TFLOP/s", basis),
        ("memory", memory, run["memory_basis"]),
    ]
    if run["dollars"] is not None:
        facts.append(("dollars", f"{run['dollars']:,.2f} for {run['seconds']:,.0f} s of training", basis))
    return facts


def _show_scaling(scaling: dict[str, Any]) -> None:
    out.print(f"\nH100s on paper, {scaling['attention']} attention, eight per node (simulated)")
    first = scaling["rows"][0]
    price = [] if first["dollars"] is None else ["$"]
    table = plain_table("GPUs", "ms", "compute", "exposed", "x", "MFU", "steps", "tokens", *price, right=NUMBERS)
    for row in scaling["rows"]:
        table.add_row(
            str(row["gpus"]), f"{row['ms_a_step']:,.1f}", f"{row['compute_ms']:,.1f}", f"{row['exposed_ms']:,.1f}",
            f"{first['ms_a_step'] / row['ms_a_step']:,.1f}", "-" if row["mfu"] is None else f"{row['mfu']:.1%}",
            f"{row['steps']:,}", f"{row['tokens'] / 1e9:,.2f} B",
            *([f"{row['dollars']:,.2f}"] if price else []),
        )  # fmt: skip
    print_table(table)
    why = {
        "speed": f"scaling ends at {scaling['ends_at']}: the next doubling gives less than {scaling['enough']} times",
        "rows": f"scaling ends at {scaling['ends_at']}: the rows of a batch do not split over more",
        "open": f"scaling goes on beyond {scaling['ends_at']}",
    }
    out.print(f"{why[scaling['ends_by']]}\n")


def _show_fit(json: bool) -> None:
    from golfcore.plan.evidence import logged_runs
    from golfcore.plan.timing import memory_model, time_model

    excluded = [run for run in logged_runs() if run.excluded]
    models = {"time": (time_model(), "ms_per_step"), "memory": (memory_model(), "peak_mib")}
    if json:
        print_json(
            {name: _fit_json(model, key) for name, (model, key) in models.items()}
            | {"excluded": [{"entry": run.entry, "log": run.log, "why": run.excluded} for run in excluded]}
        )
        return
    for name, (model, key) in models.items():
        table = plain_table(
            "part", "entry", "log", "logged", "predicted", "error", right=("logged", "predicted", "error")
        )
        for part, rows in (("fitted", model.fitted), ("held out", model.held_out)):
            for run, value, error in rows:
                table.add_row(
                    part, run.entry[:44], run.log, f"{getattr(run, key):,.1f}", f"{value:,.1f}", f"{error:+.1%}"
                )
        out.print(styled((name, "bold"), f" ({'ms per step' if name == 'time' else 'peak MiB'})"))
        print_table(table)
        factors = ", ".join(f"{term} {factor:.2f}" for term, factor in zip(model.terms, model.factors, strict=True))
        out.print(f"factors: {factors}", markup=False)
        counts = [len({run.entry for run, _, _ in part}) for part in (model.fitted, model.held_out)]
        out.print(
            f"fitted on {len(model.fitted)} logs of {counts[0]} entries; held out by the hash of the entry's name: "
            f"{len(model.held_out)} logs of {counts[1]}\nheld-out error: median {model.median_error:.1%}, "
            f"nine in ten within {model.spread:.1%}, largest {model.max_error:.1%}\n"
            f"  each entry once: median {median(model.entry_errors):.1%}\n"
            f"  {len(model.new_shape_errors)} logs of shapes that no fitted log has: median "
            f"{median(model.new_shape_errors):.1%}, largest {max(model.new_shape_errors):.1%}\n", markup=False,
        )  # fmt: skip
    for entry, why in sorted({(run.entry, run.excluded) for run in excluded}):
        out.print(f"not used: {entry}: {why}", style="dim", markup=False)


def _fit_json(model: Fit, key: str) -> dict[str, Any]:
    parts = (("fitted", model.fitted), ("held_out", model.held_out))
    return {
        "factors": dict(zip(model.terms, model.factors.tolist(), strict=True)),
        "median_error": model.median_error, "median_error_by_entry": median(model.entry_errors),
        "median_error_new_shapes": median(model.new_shape_errors), "p90_error": model.spread,
        "max_error": model.max_error,
        "rows": [
            {
                "part": part, "entry": run.entry, "log": run.log, "logged": getattr(run, key), "predicted": value,
                "error": error,
            }
            for part, rows in parts
            for run, value, error in rows
        ],
    }  # fmt: skip
