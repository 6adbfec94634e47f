"""Draw the curves of a comparison page and make the values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from golfcore.hints import command
from golfcore.report.curves import INK, MUTED, SERIES, TRAIN, VARIABLES, Curve, new_axes, set_frame, to_svg
from golfcore.report.load import RunData
from golfcore.report.page import points_of
from golfcore.report.variants import Variant

DRAWN = 6  # variants in a drawing beside the base; more lines than that tell nothing apart
GRID = 240  # points of a drawn line
STRIP = 1_000  # units of a score strip's width


def context(folder: Path, base_run: RunData, variants: Sequence[Variant], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the values that the template needs; ``rows`` belong to ``variants``, best first."""
    drawn = _drawn(variants)
    colors = _colors(variants, drawn)
    scored = [row for row in rows if row["mean"] is not None]
    best = scored[0] if scored else None
    base = next(row for row in rows if row["verdict"] == "base")
    runs = [run for row in rows for run in row["runs"]]
    curves = {index: mean_curve(variants[index].runs) for index in drawn}
    return {
        "name": folder.resolve().name,
        "base": base,
        "base_name": base_run.name,
        "best": best,
        "figure": None if best is None else f"{best['mean']:.4f}",
        "rows": [
            row | {"color": colors.get(index), "strip": _strip(row, scored, base), "rank": _rank(row, scored)}
            for index, row in enumerate(rows)
        ],
        "counts": {"runs": len(runs), "variants": len(rows), "scored": sum(run["val_bpb"] is not None for run in runs)},
        "unscored": [run for run in runs if run["val_bpb"] is None],
        "axis": _axis(scored),
        "legend": [
            {"label": variants[index].label, "color": colors[index], "base": variants[index].is_base}
            for index in drawn
            if len(curves[index])
        ],
        "hidden": len(variants) - len(drawn),
        "loss": _loss_svg(curves, variants, colors),
        "lead": _lead_svg(curves, variants, colors),
        "command": command("report", folder, "--compare", base_run.name, "--json"),
    }


def _drawn(variants: Sequence[Variant]) -> list[int]:
    """Return the variants to draw, the base and the best of the rest, in the order of the ranking."""
    base = next(index for index, variant in enumerate(variants) if variant.is_base)
    others = [index for index in range(len(variants)) if index != base][:DRAWN]
    return sorted([base, *others])


def _colors(variants: Sequence[Variant], drawn: Sequence[int]) -> dict[int, str]:
    """Return the CSS variable of each drawn variant: ink for the base, the accent for the best of the others."""
    palette = iter([TRAIN, *SERIES])
    return {index: VARIABLES[INK if variants[index].is_base else next(palette)] for index in drawn}


def mean_curve(runs: Sequence[RunData]) -> Curve:
    """Return the smoothed training loss of a variant, the mean over its runs as far as all of them have come."""
    curves = [curve.smoothed() for run in runs if len(curve := points_of(run, "train", "train_loss")) > 1]
    if not curves:
        return Curve.of([])
    low, high = max(float(c.seconds_N[0]) for c in curves), min(float(c.seconds_N[-1]) for c in curves)
    if low >= high:
        return curves[0]
    grid = np.linspace(low, high, GRID)
    means = [np.mean([np.interp(grid, c.seconds_N, part(c)) for c in curves], axis=0) for part in (_steps, _values)]
    return Curve(grid, means[0], means[1])


def _steps(curve: Curve) -> Any:
    return curve.steps_N


def _values(curve: Curve) -> Any:
    return curve.values_N


def _marker(color: str) -> str:
    return next(marker for marker, variable in VARIABLES.items() if variable == color)


def _loss_svg(curves: dict[int, Curve], variants: Sequence[Variant], colors: dict[int, str]) -> Markup | None:
    """Draw the loss over the training clock, the best variant on top."""
    shown = [curve for curve in curves.values() if len(curve)]
    if not shown:
        return None
    figure, axes = new_axes()
    set_frame(axes, max(shown, key=len), shown)
    for index in reversed(curves):
        _draw(axes, curves[index], variants[index], colors[index])
    return Markup(to_svg(figure, "loss", "Training loss of each variant over the training clock"))


def _lead_svg(curves: dict[int, Curve], variants: Sequence[Variant], colors: dict[int, str]) -> Markup | None:
    """Draw each variant's loss less the base's at the same second; below zero the variant leads."""
    base = next(curve for index, curve in curves.items() if variants[index].is_base)
    if len(base) < 2:
        return None
    leads = {}
    for index, curve in curves.items():
        if len(curve) < 2 or variants[index].is_base:
            continue
        inside = (curve.seconds_N >= base.seconds_N[0]) & (curve.seconds_N <= base.seconds_N[-1])
        values = curve.values_N - np.interp(curve.seconds_N, base.seconds_N, base.values_N)
        # A difference of two noisy lines is noisier than either: smoothed once more.
        leads[index] = Curve(curve.seconds_N[inside], curve.steps_N[inside], values[inside]).smoothed()
    shown = [lead for lead in leads.values() if len(lead)]
    if not shown:
        return None
    figure, axes = new_axes()
    set_frame(axes, max(shown, key=len), shown, also=[0.0])
    axes.axhline(0.0, color=INK, linewidth=1.5, linestyle=(0, (4, 3)))
    axes.annotate(
        "ahead of the base", (1.0, 0.02), xycoords="axes fraction", color=MUTED, ha="right", va="bottom", fontsize=10.5
    )
    for index in reversed(leads):
        _draw(axes, leads[index], variants[index], colors[index])
    return Markup(to_svg(figure, "lead", "Loss of each variant less the base's over the training clock"))


def _draw(axes: Any, curve: Curve, variant: Variant, color: str) -> None:
    if len(curve):
        style: Any = (0, (4, 3)) if variant.is_base else "-"
        width = 2.4 if color == VARIABLES[TRAIN] else 1.6
        axes.plot(curve.seconds_N, curve.values_N, color=_marker(color), linewidth=width, linestyle=style)


# --- the ranking's strips ---------------------------------------------------------------------------------------------


def _axis(scored: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the range of all scores, which every strip shares."""
    values = [score for row in scored for score in row["scores"]]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    return {"low": low - margin, "high": high + margin, "from": f"{low:.4f}", "to": f"{high:.4f}"}


def _strip(row: dict[str, Any], scored: list[dict[str, Any]], base: dict[str, Any]) -> dict[str, Any] | None:
    """Return the positions of a row's dots, mean and interval, in units of the strip's width."""
    axis = _axis(scored)
    if axis is None or row["mean"] is None:
        return None

    def place(value: float) -> float:
        share = (value - axis["low"]) / (axis["high"] - axis["low"])
        return round(STRIP * min(1.0, max(0.0, float(share))), 1)

    half = row["half_width"] or 0.0
    return {
        "dots": [place(score) for score in row["scores"]],
        "mean": place(row["mean"]),
        "from": place(row["mean"] - half),
        "to": place(row["mean"] + half),
        "base": None if base["mean"] is None else place(base["mean"]),
    }


def _rank(row: dict[str, Any], scored: list[dict[str, Any]]) -> int | None:
    return scored.index(row) + 1 if row["mean"] is not None else None
