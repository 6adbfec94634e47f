"""What the learning curves are made of."""

import re

import numpy as np

from golfcore.report.curves import MAX_POINTS, Curve, bpb_svg, loss_svg


def curve(values: list[float]) -> Curve:
    return Curve.of([(float(i), 10.0 * i, v) for i, v in enumerate(values)])


def test_smoothing_keeps_a_straight_line_but_for_its_end() -> None:
    line = curve([float(i) for i in range(600)])
    smooth = line.smoothed().values_N
    np.testing.assert_allclose(smooth[:590], line.values_N[:590])
    assert np.all(np.abs(smooth - line.values_N) <= 5)


def test_smoothing_ends_on_a_mean_of_several_points() -> None:
    noisy = curve([1.0] * 600 + [9.0])
    assert noisy.smoothed().values_N[-1] < 2.0


def test_smoothing_is_the_window_mean() -> None:
    values_N = np.random.default_rng(0).normal(size=300)
    smooth_N = curve(values_N.tolist()).smoothed().values_N
    np.testing.assert_allclose(smooth_N[150], values_N[145:156].mean())
    np.testing.assert_allclose(smooth_N[0], values_N[0])
    assert len(curve([]).smoothed()) == 0


def test_thinning_keeps_the_ends() -> None:
    thin = curve([float(i) for i in range(10_000)]).thinned()
    assert len(thin) == MAX_POINTS
    assert (thin.values_N[0], thin.values_N[-1]) == (0.0, 9999.0)


def tick_labels(svg: str) -> list[str]:
    return [label.replace("&#8722;", "-") for label in re.findall(r">([^<>]+)</text>", svg)]


def test_both_axes_are_labeled() -> None:
    labels = tick_labels(loss_svg(curve([2 + 3 / (i + 1) for i in range(101)]), curve([])))
    assert "100 s" in labels
    assert "1,000 steps" in labels


def test_the_frame_holds_the_late_curve_and_the_packed_score() -> None:
    train = curve([2 + 60 / (i + 1) ** 2 for i in range(101)])
    high = max(float(label) for label in tick_labels(loss_svg(train, curve([]))) if re.fullmatch(r"\d\.\d+", label))
    assert high < 4.0  # of a loss that begins at 62
    svg = bpb_svg(curve([1.3, 1.2]), curve([]), final=1.9)
    assert "packed 1.9000" in svg
    assert "1.8" in tick_labels(svg)


def test_few_points_are_enough() -> None:
    for n in (1, 2, 3):
        assert loss_svg(curve([2.0] * n), curve([])).startswith("<svg")
        assert bpb_svg(curve([1.0] * n), curve([]), None).startswith("<svg")
    assert bpb_svg(curve([]), curve([]), 1.2).startswith("<svg")
