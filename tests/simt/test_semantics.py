"""The model against the CUDA programming guide: threads, shuffles, votes, barriers, atomics, copies, conversions."""

from __future__ import annotations

import pytest
import torch
from simt_model import SEEDS, run


def test_coordinates() -> None:
    out = torch.full((3 * 2 * 2, 4 * 2 * 3), -1, dtype=torch.int64)
    run("coordinates", out)
    expected = [
        [
            x + 10 * (y + 10 * (z + 10 * (bx + 10 * (by + 10 * bz))))
            for z in range(3) for y in range(2) for x in range(4)
        ]
        for bz in range(2) for by in range(2) for bx in range(3)
    ]  # fmt: skip
    assert out.tolist() == expected


def shuffled(lane: int, kind: int, width: int, by: int) -> int:
    """The lane that ``lane`` reads from, in the words of the guide."""
    start, place = lane - lane % width, lane % width
    if kind == 0:  # "if srcLane is outside the range [0:width-1], the value returned is that of srcLane modulo width"
        return start + by % width
    if kind == 1:  # up: lanes below delta keep their value
        return lane - by if place >= by else lane
    if kind == 2:  # down: the upper delta lanes keep theirs
        return lane + by if place + by < width else lane
    # xor: earlier groups may be read, later ones not
    other = lane ^ by
    return other if other < start + width else lane


@pytest.mark.parametrize("width", [2, 8, 16, 32])
@pytest.mark.parametrize("by", [0, 1, 3, 9, 16, 31])
def test_shuffles(width: int, by: int) -> None:
    values = torch.randperm(32, generator=torch.Generator().manual_seed(width * 100 + by)).int()
    out = torch.zeros(4, 32, dtype=torch.int32)
    run("shuffles", values, out, n=(width << 32) + by, seed=by)
    expected = [[int(values[shuffled(lane, kind, width, by)]) for lane in range(32)] for kind in range(4)]
    assert out.tolist() == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_votes_and_reductions(seed: int) -> None:
    values = torch.randint(0, 100, (32,), generator=torch.Generator().manual_seed(seed)).int()
    out = torch.zeros(32, 10, dtype=torch.int32)
    run("votes", values, out, seed=seed)
    v = values.tolist()
    for lane in range(32):
        half = range(16) if lane < 16 else range(16, 32)
        bitor, bitand = 0, -1
        for x in v:
            bitor, bitand = bitor | x, bitand & (x | 64)
        expected = [
            sum(v[i] for i in half) + (0 if lane < 16 else 2 * 16),
            sum(1 << i for i in half if v[i] % 2 == 1),
            sum(1 << i for i in range(32) if v[i] % 3 == 0),
            int(7 in v) + 2 * int(max(v) < 100),
            sum(v), max(v), min(v), bitor, bitand,
            int(torch.tensor(float(sum(v[lane - lane % 8 : lane - lane % 8 + 8]))).view(torch.int32)),
        ]  # fmt: skip
        assert [x & 0xFFFFFFFF for x in out[lane].tolist()] == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_block_barrier_and_shared_memory(seed: int) -> None:
    x = torch.randn(6, 128, generator=torch.Generator().manual_seed(1))
    out = torch.zeros_like(x)
    run("reverse", x, out, n=6, seed=seed)
    assert torch.equal(out, x.flip(1) + (2 * x.flip(1)).roll(-1, 1))


def test_barrier_with_a_predicate() -> None:
    x = torch.randint(-3, 4, (96,), generator=torch.Generator().manual_seed(1)).int()
    out = torch.zeros_like(x)
    run("counts", x, out)
    assert (out == (x > 0).sum()).all()
    x = x.abs()
    x[50] = 5
    run("counts", x, out)
    assert (out == 11000 + (x > 0).sum()).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_named_barriers(seed: int) -> None:
    x = torch.arange(7 * 32).int().view(7, 32)
    out = torch.zeros(7, 2, 32, dtype=torch.int32)
    run("pipeline", x, out, n=7, seed=seed)
    assert torch.equal(out, x.flip(1)[:, None].expand(7, 2, 32))


@pytest.mark.parametrize("seed", SEEDS)
def test_atomics(seed: int) -> None:
    x = torch.randint(1, 1000, (5, 64), generator=torch.Generator().manual_seed(2)).int()
    out = torch.tensor([0, 0, 10_000, 0, 0, 0]).int()
    run("atomics", x, out, n=5, seed=seed)
    total, largest, smallest, last, swapped, count = out.tolist()
    assert (total, largest, smallest, count) == (x.sum(), x.max(), x.min(), 1)
    assert last in x and swapped in x


@pytest.mark.parametrize("seed", SEEDS)
def test_asynchronous_copies(seed: int) -> None:
    x = torch.randint(-50, 50, (5, 128), generator=torch.Generator().manual_seed(3)).float()
    out = torch.zeros(128)
    run("fetch", x, out, n=5, seed=seed)
    cut = x.clone()
    cut[4].view(32, 4)[:, 2:] = 0  # 8 of the last row's 16 bytes are read
    assert torch.equal(out, cut.sum(0))


def test_a_seed_is_an_order() -> None:
    orders = []
    for seed in (*SEEDS, 0):
        count, out = torch.zeros(1, dtype=torch.int32), torch.zeros(6, 8, dtype=torch.int32)
        run("arrivals", count, out, n=6, seed=seed, threads=1)
        assert sorted(out.flatten().tolist()) == list(range(48))
        orders.append(out.flatten().tolist())
    assert orders[0] == orders[-1]
    assert len({tuple(order) for order in orders}) == len(SEEDS)
    firsts = {order.index(0) for order in orders}
    assert len(firsts) > 3  # neither the first block nor the first warp is always first


def test_conversions() -> None:
    every_half = torch.arange(-(2**15), 2**15).to(torch.int16)
    generator = torch.Generator().manual_seed(4)
    bits = torch.randint(-(2**31), 2**31, (40_000,), generator=generator).int()
    near = every_half.view(torch.float16).float().view(torch.int32)
    parts = [
        bits,
        every_half.int() << 16,
        near,
        near + 0x1000,
        near - 0x1000,
        near + 0xFFF,
        (every_half.int() << 16) + 0x8000,
    ]
    x = torch.cat(parts).view(torch.float32)
    out = torch.zeros(2, len(x), dtype=torch.int16)
    back = torch.zeros(2, len(x))
    run("conversions", x, out, back, n=len(x))
    for ours, values, kind in zip(out, back, (torch.bfloat16, torch.float16), strict=True):
        expected = x.to(kind)
        numbers = ~x.isnan()
        assert torch.equal(ours.view(kind)[numbers], expected[numbers])
        assert torch.equal(ours.view(kind)[numbers].signbit(), expected[numbers].signbit())
        assert (ours[~numbers] == 0x7FFF).all()
        assert torch.equal(values[numbers], expected.float()[numbers])
        assert values[~numbers].isnan().all()


def test_functions() -> None:
    """Those of device/ptx.h and device/math.h, as exact as they say; NaN and infinities too."""
    nan, inf = float("nan"), float("inf")
    special = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1e-8, -150.0, 128.0, -130.0, inf, -inf, nan])
    x = torch.cat([special, torch.linspace(-20, 20, 30_001), torch.logspace(-30, 30, 999)])
    out = torch.zeros(4, len(x))
    run("functions", x, out, n=len(x))
    power, inverse, fast, rational = out
    normal = torch.where(x.abs() < 2.0**-126, torch.zeros(()).copysign(x), x).double()
    for ours, exact in ((power, torch.exp2(normal)), (inverse, 1 / normal)):
        exact = torch.where(exact.abs() < 2.0**-126, 0.0, exact).float()
        assert torch.allclose(ours, exact, rtol=2.0**-22, atol=0.0, equal_nan=True)
    assert torch.allclose(fast, x.double().tanh().float(), rtol=0.0, atol=2e-7, equal_nan=True)
    assert torch.allclose(rational, x.double().tanh().float(), rtol=8 * 2.0**-24, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 7, 12, 16, 641, 65_535, 65_536, 98_304, 2**30 + 1, 2**31 - 1])
def test_divisions_by_a_factor_from_the_host_are_exact(divisor: int) -> None:
    """At multiples of the divisor, before and behind them, where a factor that is too small or large shows first."""
    most = 2**31 - 1
    near = [k * divisor + d for k in (0, 1, 2, 3, 1000, most // divisor - 1, most // divisor) for d in (-1, 0, 1)]
    edges = [n for n in [*near, most - 1, most] if 0 <= n <= most]
    drawn = torch.randint(0, most, (128 - len(edges),), generator=torch.Generator().manual_seed(divisor)).tolist()
    dividends, out = torch.tensor(edges + drawn, dtype=torch.int32), torch.zeros(2, 128, dtype=torch.int32)
    run("divisions", dividends, out, n=divisor)
    assert out.tolist() == [[n // divisor for n in edges + drawn], [n % divisor for n in edges + drawn]]
