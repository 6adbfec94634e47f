"""Tell whether runs are better than others, by the policies of a contest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from golfcore.cli.output import out, plain_table, print_json, print_table
from golfcore.errors import UsageError
from golfcore.ranges import FACTOR

if TYPE_CHECKING:
    from golfcore.contest.ruleset import RuleSet
    from golfcore.contest.runs import RunValue
    from golfcore.contest.significance import Comparison

Words = Annotated[Sequence[str], Parameter(negative=(), consume_multiple=True)]


def stats(
    *,
    runs: Words,
    vs: Words,
    of: Literal["loss", "step_ms", "train_s", "eval_s"] = "loss",
    design: Literal["welch", "paired", "abba"] = "welch",
    policy: str = "",
    rules: str = "",
    bytes_per_token: Annotated[float, Parameter(validator=FACTOR)] = 0.0,
    json: bool = False,
) -> int:
    """Compare runs with others: one-sided test, 95 % interval, each policy, and the seeds still needed.

    Runs that are copies of each other under two seeds are refused. Exit code 1 if the policy that is named is not met.

    Args:
        runs: Logs, folders of runs or entries, or numbers: what is claimed to be better.
        vs: The same of what is to be beaten; one number is taken as exact.
        of: What is compared: the loss in nats per token, or a time. Smaller is better.
        design: welch for independent seeds; paired if the i-th of both share a seed or a machine; abba if they were
            timed in the order A B B A, which cancels a drift.
        policy: The policy that decides the exit code, such as record; all are shown.
        rules: A rule set, or the TOML file of one, for its policies; parameter_golf_audit if none is named.
        bytes_per_token: Mean bytes of a token, where a log has bits per byte and no loss.
    """
    from golfcore.contest.ruleset import DEFAULT, load_rules
    from golfcore.contest.runs import read_values
    from golfcore.contest.significance import compare
    from golfcore.suggest import nearest

    chosen = load_rules(rules or DEFAULT)
    names = [known.name for known in chosen.policies]
    if policy and policy not in names:
        raise UsageError(f"{chosen.name} has no policy {policy!r}; it has {', '.join(names)}{nearest(policy, names)}")
    ours = read_values(list(runs), of, chosen, bytes_per_token)
    theirs = read_values(list(vs), of, chosen, bytes_per_token)
    result = compare([run.value for run in ours], [run.value for run in theirs], design)
    found = _found(result, ours, theirs, of, chosen)
    if json:
        print_json(found)
    else:
        _show(found)
    return int(any(item["policy"] == policy and not item["passes"] for item in found["policies"]))


def _found(
    result: Comparison, ours: list[RunValue], theirs: list[RunValue], of: str, chosen: RuleSet
) -> dict[str, Any]:
    """Return a comparison as one document."""
    from golfcore.contest.significance import passes, seeds_needed

    return {
        "design": result.design,
        "of": of,
        "runs": [{"name": run.name, "seed": run.seed, "value": run.value} for run in ours],
        "vs": [{"name": run.name, "seed": run.seed, "value": run.value} for run in theirs],
        "gain": result.gain,
        "interval": list(result.interval()),
        "p": result.p(),
        "freedom": result.freedom,
        "policies": [
            {
                "policy": known.name,
                "text": known.text,
                "p": result.p(known.floor_nats),
                "passes": passes(result, known),
                "runs_needed": seeds_needed(result, known),
            }
            for known in (chosen.policies if of == "loss" else [])
        ],
    }


def _show(found: dict[str, Any]) -> None:
    """Print a comparison for people."""
    from golfcore.contest.findings import clean

    unit = {"loss": "nats per token", "step_ms": "ms per step"}.get(found["of"], "s")
    for title, key in (("runs", "runs"), ("others", "vs")):
        values = [run["value"] for run in found[key]]
        names = ", ".join(clean(run["name"], 60) for run in found[key][:6])
        out.print(f"{title}: mean {sum(values) / len(values):.6g} {unit} over {len(values)} ({names})", markup=False)
    low, high = found["interval"]
    out.print(
        f"gain: {found['gain']:.6g} {unit}, 95 % interval {low:.6g} to {high:.6g}; one-sided p {found['p']:.3g} "
        f"({found['design']}, {found['freedom']:.3g} degrees of freedom)",
        markup=False,
    )
    if not found["policies"]:
        return
    table = plain_table("policy", "met", "p", "runs needed", "what it asks", right=("p", "runs needed"))
    for item in found["policies"]:
        needed = "no number" if item["runs_needed"] is None else str(item["runs_needed"])
        table.add_row(item["policy"], "yes" if item["passes"] else "no", f"{item['p']:.3g}", needed, item["text"])
    print_table(table)
