"""Draw learning curves as inline SVG.

Matplotlib draws with marker colors that are then replaced by the page's CSS variables, so one drawing serves light
and dark. The same numbers always give the same bytes: no date, a fixed hash salt, ids with a prefix per drawing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# Marker color -> the page's CSS variable.
INK, MUTED, LINE, TRAIN, VAL = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = {
    "#060606": "--blue",
    "#070707": "--scale",
    "#080808": "--control",
    "#090909": "--tokenizer",
    "#0a0a0a": "--code",
}
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", TRAIN: "--accent", VAL: "--blue", **SERIES}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "golfcore",
    "font.family": ["DejaVu Sans"],  # for measuring; the page replaces it
    "font.size": 11.5,
    "text.color": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
    "path.simplify": False,
}
WIDTH, HEIGHT = 500, 280  # CSS pixels at the drawing's natural size
MAX_POINTS = 1_500


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve of a run over the training clock: seconds, steps and a value, each of shape (N,)."""

    seconds_N: NDArray[np.float64]
    steps_N: NDArray[np.float64]
    values_N: NDArray[np.float64]

    @classmethod
    def of(cls, points: Sequence[tuple[float, float, float]]) -> Curve:
        """Make a curve from ``(seconds, step, value)`` in any order."""
        table = np.array(sorted(points), dtype=np.float64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    def __len__(self) -> int:
        return len(self.values_N)

    def scaled(self, factor: float) -> Curve:
        return Curve(self.seconds_N, self.steps_N, self.values_N * factor)

    def thinned(self) -> Curve:
        """Return the curve with at most ``MAX_POINTS`` of its points, evenly chosen, with the last."""
        if len(self) <= MAX_POINTS:
            return self
        keep = np.unique(np.linspace(0, len(self) - 1, MAX_POINTS).astype(np.int64))
        return Curve(self.seconds_N[keep], self.steps_N[keep], self.values_N[keep])

    def smoothed(self) -> Curve:
        """Return the curve averaged over a window of a thirtieth of its points, centered, so that it has no lag.

        Near the start, where the curve falls steeply, the window narrows on both sides; near the end only its right
        half does, since a narrow window would end the line on a single noisy point.
        """
        n = len(self)
        index_N = np.arange(n)
        left_N = np.minimum(max(1, n // 60), index_N)
        right_N = np.minimum(left_N, n - 1 - index_N)
        sums = np.concatenate(([0.0], np.cumsum(self.values_N)))
        means_N = (sums[index_N + right_N + 1] - sums[index_N - left_N]) / (left_N + right_N + 1)
        return Curve(self.seconds_N, self.steps_N, means_N)


def loss_svg(train: Curve, val: Curve) -> str:
    """Draw the training loss, faint as logged and smoothed on top, with validation points; nats per token."""
    figure, axes = new_axes()
    smooth = train.smoothed()
    set_frame(axes, smooth, [train, val])
    if len(train):
        raw = train.thinned()
        axes.plot(raw.seconds_N, raw.values_N, color=TRAIN, alpha=0.3, linewidth=1)
        _line(axes, smooth, alpha=1.0)
    _points(axes, val)
    _step_axis(axes, train if len(train) else val)
    return to_svg(figure, "loss", "Loss in nats per token over the training clock")


def bpb_svg(val: Curve, train: Curve, final: float | None) -> str:
    """Draw bits per byte: validation, training converted by ``val``'s bytes per token, the packed score as a line."""
    figure, axes = new_axes()
    smooth = train.smoothed()
    set_frame(axes, smooth, [smooth, val], also=[] if final is None else [final])
    if final is not None:
        axes.axhline(final, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"packed {final:.4f}", (0.0, final), xycoords=("axes fraction", "data"), xytext=(2, -5),
            textcoords="offset points", color=INK, ha="left", va="top", fontsize=STYLE["font.size"],
        )  # fmt: skip
    if len(train):
        _line(axes, smooth, alpha=0.45)
    _points(axes, val)
    _step_axis(axes, train if len(train) else val)
    return to_svg(figure, "bpb", "Validation in bits per byte over the training clock")


def new_axes() -> tuple[Figure, Axes]:
    """Return an empty drawing in the style of the page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.075, 0.09, 0.91, 0.81))
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return figure, axes


def _line(axes: Axes, smooth: Curve, alpha: float) -> None:
    line = smooth.thinned()
    axes.plot(line.seconds_N, line.values_N, color=TRAIN, alpha=alpha, linewidth=2)


def _points(axes: Axes, val: Curve) -> None:
    """Draw validation points, joined; those above the frame are left out, so that no line leads out of it."""
    inside = val.values_N <= axes.get_ylim()[1]
    seconds, values = val.seconds_N[inside], val.values_N[inside]
    axes.plot(seconds, values, color=VAL, linewidth=1.5, alpha=0.6)
    axes.plot(seconds, values, color=VAL, linestyle="none", marker="o", markersize=3 if len(values) > 60 else 5.5)


def set_frame(axes: Axes, smooth: Curve, shown: Sequence[Curve], also: Sequence[float] = ()) -> None:
    """Set the axis limits without the first 10 % of the run, whose steep drop would flatten the rest.

    Args:
        axes: the axes of the drawing.
        smooth: gives the value at 10 % of the run; with few points nothing is left out.
        shown: the curves that have to be within the limits.
        also: further values that have to be within the limits.
    """
    values = np.concatenate([curve.values_N for curve in shown])
    seconds = np.concatenate([curve.seconds_N for curve in shown])
    end = float(seconds.max(initial=0.0)) or 1.0
    if len(smooth) >= 20:
        late = seconds > 0.1 * end
        values = np.append(values[late], np.interp(0.1 * end, smooth.seconds_N, smooth.values_N))
    values = np.append(values, also)
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, end * 1.01)
    _ticks(axes, [(s, s) for s in MaxNLocator(6).tick_values(0, end) if 0 <= s <= end], "s")


def _step_axis(axes: Axes, curve: Curve) -> None:
    """Draw the axis of steps on top, each at the second when it was done."""
    if len(curve) < 2:
        return
    with mpl.rc_context(STYLE):
        top = axes.twiny()
    top.patch.set_alpha(0)
    for spine in top.spines.values():
        spine.set_visible(False)
    top.set_xlim(axes.get_xlim())
    top.tick_params(length=0, pad=4)
    first, last = float(curve.steps_N[0]), float(curve.steps_N[-1])
    steps = [s for s in MaxNLocator(5, integer=True).tick_values(0, last) if first <= s <= last]
    _ticks(top, [(float(np.interp(s, curve.steps_N, curve.seconds_N)), s) for s in steps], "steps")


def _ticks(axes: Axes, places: Sequence[tuple[float, float]], unit: str) -> None:
    """Set ticks at ``(position, number)``; the last also names the unit."""
    axes.set_xticks([position for position, _ in places])
    labels = [f"{value:,.10g}" for _, value in places]
    texts = axes.set_xticklabels(labels[:-1] + [f"{label} {unit}" for label in labels[-1:]])
    if places and places[-1][0] > 0.93 * axes.get_xlim()[1]:
        texts[-1].set_horizontalalignment("right")


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Return the drawing as an ``<svg>`` element for use in HTML; ``label`` describes it to screen readers."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">', text, count=1)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text
