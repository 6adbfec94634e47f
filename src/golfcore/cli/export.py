"""``golfcore export``: write the entry of a run, and try it without golfcore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from golfcore.cli import output
from golfcore.cli.artifact import Output


def export(
    run: Path, /, *, target: Output, author: str = "", github_id: str = "", title: str = "",
    trial: Annotated[bool, Parameter(name="--try")] = True, json: Annotated[bool, Parameter(negative="")] = False,
) -> int:  # fmt: skip
    """Write a run's entry: train_gpt.py, which needs no golfcore, model.golf, README.md, submission.json and the log.

    The exit code is 1 if script and model together are above the cap of the track.

    Args:
        run: The folder of a run that was scored.
        target: The folder to make, which must not exist or be empty.
        author: Your name for submission.json.
        github_id: Your account on GitHub for submission.json.
        title: Title of the entry; default: the recipe's name.
        trial: Run the script in a Python that cannot import golfcore, and compare its score with golfcore's in fp32.
        json: Print one JSON object.
    """
    from golfcore.export.folder import export_run

    entry = export_run(run, target, author=author, github_id=github_id, title=title, tried=trial)
    fits = entry.total <= entry.cap
    if json:
        output.print_json({
            "folder": str(entry.folder), "bytes_code": entry.facts["bytes_code"],
            "bytes_model": entry.facts["bytes_model"], "bytes_total": entry.total,
            "bytes_cap": entry.cap, "bytes_expanded": entry.expanded, "fits": fits,
            "val_bpb": entry.facts["val_bpb"], "trial": entry.trial,
        })  # fmt: skip
        return 0 if fits else 1
    code, model = entry.facts["bytes_code"], entry.facts["bytes_model"]
    lines = [
        f"{entry.folder}: train_gpt.py {code:,} bytes ({entry.expanded:,} expanded) + model.golf {model:,} bytes "
        f"= {entry.total:,} of {entry.cap:,}",
        "the script trains, quantizes, packs and scores; what it does otherwise than golfcore is in README.md",
    ]
    if entry.trial is not None:
        lines.append(
            f"without golfcore, in fp32: {entry.trial['val_bpb']:.8f} bits per byte; golfcore "
            f"{entry.trial['golfcore_val_bpb']:.8f}"
        )
    if not fits:
        lines.append(f"{entry.total - entry.cap:,} bytes above the cap: run the recipe again with {entry.advice}")
    for line in lines:
        output.out.print(line, markup=False)
    return 0 if fits else 1
