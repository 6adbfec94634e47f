"""mma, ldmatrix and cp.async against known matrices."""

from __future__ import annotations

import pytest
import torch
from simt_model import SEEDS, run


def small(*shape: int, seed: int = 0) -> torch.Tensor:
    """Whole numbers whose sums of products are exact."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_product(seed: int) -> None:
    a, b = small(16, 16, seed=seed), small(16, 8, seed=seed + 100)
    c, d = small(16, 8, seed=seed + 200).float(), torch.zeros(16, 8)
    run("one_product", a, b, c, d, seed=seed)
    assert torch.equal(d, a.float() @ b.float() + c)


def test_every_element_has_its_place() -> None:
    """A unit matrix for A, then for B: each element of the other arrives where it belongs, and nowhere else."""
    numbers_a, numbers_b = torch.arange(256.0).view(16, 16).bfloat16(), torch.arange(128.0).view(16, 8).bfloat16()
    zero, d = torch.zeros(16, 8), torch.zeros(16, 8)
    run("one_product", torch.eye(16).bfloat16(), numbers_b, zero, d)
    assert torch.equal(d, numbers_b.float())
    for half in (0, 8):
        run("one_product", numbers_a, torch.eye(16)[:, half : half + 8].bfloat16().contiguous(), zero, d)
        assert torch.equal(d, numbers_a[:, half : half + 8].float())


def test_a_wrong_fragment_index_shows() -> None:
    a, b, zero, d = small(16, 16), small(16, 8, seed=1), torch.zeros(16, 8), torch.zeros(16, 8)
    run("one_product", a, b, zero, d, n=1)
    assert not torch.equal(d, a.float() @ b.float())


def test_matrix_loads() -> None:
    rows = torch.arange(256, dtype=torch.int16)
    out = torch.zeros(4, 32, 4, dtype=torch.int32)
    run("fragments", rows, out)
    tiles = rows.view(4, 8, 8)
    for form, (count, transposed) in enumerate(((4, False), (4, True), (2, False), (2, True))):
        for lane in range(32):
            for tile in range(count):
                m = tiles[tile].t() if transposed else tiles[tile]
                low, high = m[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()
                assert out[form, lane, tile] == low | high << 16, (form, lane, tile)


@pytest.mark.parametrize("seed", SEEDS)
def test_tiled_product(seed: int) -> None:
    m, n, k = 128, 64, 160
    a, b = small(m, k, seed=seed), small(k, n, seed=seed + 1)
    c = torch.zeros(m, n)
    run("product", torch.tensor([m, n, k]).int(), a, b, c, seed=seed)
    assert torch.equal(c, a.float() @ b.float())
