"""The optimizer steps beyond the table: whole runs against torch's optimizers, orthogonality, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import POLAR_EXPRESS, QUINTIC, adamw_, muon_, orthogonalize, using
from golfcore.ops.registry import ISAS


@pytest.fixture
def isa() -> Iterator[Any]:
    yield _core.set_isa
    _core.set_isa(ISAS[-1])


LR, DECAY = [0.03, 0.02, 0.01], [0.1, 0.0, 0.2]


def test_adamw_follows_torch_over_a_run() -> None:
    torch.manual_seed(0)
    shapes = [(33, 7), (40,), (64, 64)]
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    ours = [p.detach().clone() for p in theirs]
    m, v = [torch.zeros_like(p) for p in ours], [torch.zeros_like(p) for p in ours]
    groups = [{"params": [p], "lr": lr, "weight_decay": wd} for p, lr, wd in zip(theirs, LR, DECAY, strict=True)]
    torchs = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    for step in range(1, 21):
        for p in theirs:
            p.grad = torch.randn_like(p)
        adamw_(ours, [p.grad for p in theirs if p.grad is not None], m, v, lr=LR, weight_decay=DECAY,
               betas=(0.9, 0.99), step=step)  # fmt: skip
        torchs.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 48, 96), (2, 96, 48), (2, 65, 65)])
def test_orthogonalize_pulls_singular_values_to_one(
    shape: tuple[int, int, int], dtype: torch.dtype, level: str, isa: Any
) -> None:
    isa(level)
    torch.manual_seed(0)
    bank = torch.randn(shape)
    bank = (bank / bank.norm(dim=(1, 2), keepdim=True)).to(dtype)
    before = bank.clone()
    polar = torch.linalg.svdvals(orthogonalize(bank, POLAR_EXPRESS).float())
    quintic = torch.linalg.svdvals(orthogonalize(bank, QUINTIC).float())
    assert torch.equal(bank, before)
    # Five steps reach singular values down to about 1e-3 of the norm; square random matrices have smaller ones.
    settled = torch.linalg.svdvals(bank.float()) > 0.01
    assert polar[settled].min() > 0.8 and polar.max() < 1.2
    assert quintic[settled].min() > 0.6 and quintic.max() < 1.3


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("shape", [(9, 40, 40), (1, 50, 101), (2, 203, 97), (1, 150, 700), (3, 1, 5)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_orthogonalize_in_fp32_is_as_exact_as_torch(
    shape: tuple[int, int, int], steps: int, level: str, isa: Any
) -> None:
    isa(level)
    torch.manual_seed(0)
    bank = torch.randn(shape)
    bank /= bank.norm(dim=(1, 2), keepdim=True)
    with using("reference"):
        exact = orthogonalize(bank.double(), POLAR_EXPRESS[:steps])
    torch.testing.assert_close(orthogonalize(bank, POLAR_EXPRESS[:steps]).double(), exact, rtol=0, atol=1e-5)


def test_muon_moves_along_the_polar_factor() -> None:
    torch.manual_seed(0)
    g = torch.randn(1, 64, 32)
    u, _, vh = torch.linalg.svd(g[0], full_matrices=False)
    p = torch.zeros(1, 64, 32)
    muon_(p.unbind(), g.unbind(), torch.zeros_like(p).unbind(), lr=1.0, momentum=0.9)
    step = p[0] / -(2**0.5)  # sqrt(rows / columns)
    assert torch.nn.functional.cosine_similarity(step.flatten(), (u @ vh).flatten(), dim=0) > 0.99


def test_reference_and_native_steps_agree() -> None:
    torch.manual_seed(0)
    p, g, m = torch.randn(2, 24, 40), torch.randn(2, 24, 40), torch.randn(2, 24, 40)
    results = []
    for mode in ("native", "reference"):
        with using(mode):
            q, n = p.clone(), m.clone()
            muon_(q.unbind(), g.unbind(), n.unbind(), lr=0.02, momentum=0.95, weight_decay=0.1, row_norm=True)
            results.append((q, n))
    (q1, n1), (q2, n2) = results
    torch.testing.assert_close(n1, n2)
    assert (q1 - q2).abs().max() < 0.02 * 0.02  # a bf16 rounding of the update


def test_non_contiguous_gradients() -> None:
    g = torch.randn(40, 24).t()
    p, m = torch.randn(24, 40), torch.zeros(24, 40)
    q, n = p.clone(), m.clone()
    muon_([p], [g], [m], lr=0.1, momentum=0.9)
    muon_([q], [g.contiguous()], [n], lr=0.1, momentum=0.9)
    assert torch.equal(p, q)


def test_nothing_to_do() -> None:
    adamw_([], [], [], [], lr=0.1, step=1)
    muon_([], [], [], lr=0.1, momentum=0.9)
    assert orthogonalize(torch.empty(0, 3, 4, dtype=torch.bfloat16)).shape == (0, 3, 4)


P = torch.zeros(4, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grads": [P, P]}, "2 grads for 1 params"),
        ({"grads": [torch.zeros(6, 4)]}, r"grads\[0\] has shape \(6, 4\)"),
        ({"grads": [P.half()]}, r"grads\[0\] is torch.float16"),
        ({"buffers": [P.bfloat16()]}, r"buffers\[0\] is torch.bfloat16"),
        ({"buffers": [torch.zeros(6, 4).t()]}, r"buffers\[0\] is not contiguous"),
        ({"shadows": [P]}, r"shadows\[0\] is torch.float32 on cpu; expected torch.bfloat16"),
        ({key: [torch.zeros(24)] for key in ("params", "grads", "buffers")}, "matrices of one shape"),
        ({key: [P.bfloat16()] for key in ("params", "grads", "buffers")}, "fp32 master weights"),
    ],
)  # fmt: skip
def test_bad_input_names_the_tensor(change: dict[str, Any], message: str) -> None:
    arguments = {"params": [P], "grads": [P], "buffers": [P], "lr": 0.1, "momentum": 0.9}
    with pytest.raises(InputError, match=message):
        muon_(**{**arguments, **change})


def test_adamw_counts_steps_and_rates() -> None:
    with pytest.raises(InputError, match="step = 0"):
        adamw_([P], [P], [P], [P], lr=0.1, step=0)
    with pytest.raises(InputError, match="2 lr for 1 params"):
        adamw_([P], [P], [P], [P], lr=[0.1, 0.2], step=1)
