"""Draw docs/trellis.svg: ten weights of a column, quantized by the real search. Run it from the repository's root."""

from __future__ import annotations

from pathlib import Path

import torch

from golfcore.container.trellis import MASKS, points
from golfcore.ops.columns import quantize_columns

BITS, ROWS, STEP = 2, 10, 44.0  # states are 2^BITS; pixels for one step
COLORS = ("#2563eb", "#d97706", "#059669", "#b91c1c")  # cosets 0 to 3
TOP, LEFT, ROW = 70, 60, 34


def main() -> None:
    weights_O = torch.randn(ROWS, generator=torch.Generator().manual_seed(4)) * 1.3
    columns = weights_O[None].clone(), weights_O[None].clone()
    symbols_CO = quantize_columns(*columns, torch.zeros(1, 1), torch.ones(ROWS), trellis=BITS)
    path = points(symbols_CO.numpy().reshape(ROWS, 1), BITS)[:, 0].tolist()
    states = [0]
    for point in path:
        states.append((states[-1] >> 1) ^ MASKS[BITS][point & 3])
    parts = grid(weights_O.tolist(), path, states) + trellis(path, states)
    height = TOP + ROW * (ROWS + 1) + 20
    style = "font: 13px sans-serif; background: #ffffff"
    Path("docs/trellis.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" style="{style}">'
        f'<rect width="760" height="{height}" fill="#ffffff"/>' + "".join(parts) + "</svg>\n"
    )


def text(x: float, y: float, words: str, color: str = "#333333", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}">{words}</text>'


def grid(weights: list[float], path: list[int], states: list[int]) -> list[str]:
    """Draw the left half: the points of each row that the state allows, the weight, and the point that was chosen."""
    middle = LEFT + 4.5 * STEP
    parts = [text(middle, 24, "points of half a step; a state allows every second one"),
             text(middle, 44, "cross: the weight; ring: the point of the path")]  # fmt: skip
    for row, (weight, point, state) in enumerate(zip(weights, path, states, strict=False)):
        y = TOP + ROW * (row + 0.5)
        parts.append(text(LEFT - 30, y + 4, f"row {row}"))
        for p in range(-8, 9):
            x = middle + p * STEP / 2
            radius, faint = (4.5, 1.0) if (p & 1) == (state & 1) else (2.5, 0.25)
            parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="{radius}" fill="{COLORS[p & 3]}" opacity="{faint}"/>')
        x = middle + weight * STEP
        parts.append(f'<path d="M{x - 5:.1f} {y - 5}l10 10m0 -10l-10 10" stroke="#111111" stroke-width="2"/>')
        x = middle + point * STEP / 2
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="8" fill="none" stroke="#111111" stroke-width="1.5"/>')
    return parts


def trellis(path: list[int], states: list[int]) -> list[str]:
    """Draw the right half: all moves between the four states from row to row, and the path of least squared error."""
    count = 1 << BITS
    xs = [540 + 55 * s for s in range(count)]
    parts = [text(sum(xs) / count, 24, "states; a move is a coset of points four apart")]
    parts += [text(x, 52, str(s)) for s, x in enumerate(xs)]
    for row in range(len(path)):
        y = TOP + ROW * row
        for state in range(count):
            for coset in (state & 1, (state & 1) + 2):
                after = (state >> 1) ^ MASKS[BITS][coset]
                taken = state == states[row] and coset == path[row] & 3
                look = 'stroke-width="3.5"' if taken else 'stroke-width="1" opacity="0.3"'
                parts.append(f'<path d="M{xs[state]} {y}L{xs[after]} {y + ROW}" stroke="{COLORS[coset]}" {look}/>')
    for row, state in enumerate(states):
        parts.append(f'<circle cx="{xs[state]}" cy="{TOP + ROW * row}" r="5" fill="#111111"/>')
    return parts


if __name__ == "__main__":
    main()
