"""The head beyond the table: its pass over the logits alone, small and large losses, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import head, linear_cross_entropy, products
from golfcore.ops.registry import DTYPE_CODE, ISAS


@pytest.fixture
def isa() -> Iterator[Any]:
    yield _core.set_isa
    _core.set_isa(ISAS[-1])


def one_pass(z_NV: torch.Tensor, targets_N: torch.Tensor, cap: float, threads: int) -> torch.Tensor:
    """Losses [N] of the native pass; ``z_NV`` becomes the gradient of their sum."""
    losses_N, ones_N = torch.empty(z_NV.shape[0]), torch.ones(z_NV.shape[0])
    _core.head_cross_entropy(
        DTYPE_CODE[z_NV.dtype], z_NV.data_ptr(), targets_N.data_ptr(), ones_N.data_ptr(), losses_N.data_ptr(),
        *z_NV.shape, cap, threads,
    )  # fmt: skip
    return losses_N


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pass_gives_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    z_NV = torch.randn(300, 1031).to(dtype) * 9
    targets_N = torch.randint(0, 1031, (300,))
    one, three = z_NV.clone(), z_NV.clone()
    assert torch.equal(one_pass(one, targets_N, 30.0, 1), one_pass(three, targets_N, 30.0, 3))
    assert torch.equal(one, three)


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("cap", [0.0, 15.0, 30.0, 64.0, 100.0])
def test_every_magnitude_of_logit(level: str, cap: float, isa: Any) -> None:
    """One logit against a zero, from the smallest to far beyond the cap: loss and gradient to f32 rounding."""
    isa(level)
    size = torch.cat((10.0 ** torch.arange(-30, 4), torch.linspace(0, 3 * max(cap, 30.0), 997)))
    z_N = torch.cat((size, -size)).float()
    z_NV = torch.stack((z_N, torch.zeros_like(z_N)), 1).contiguous()
    exact_NV = z_NV.double().requires_grad_()
    capped = cap * torch.tanh(exact_NV / cap) if cap else exact_NV
    exact_N = torch.nn.functional.cross_entropy(capped, torch.zeros(len(z_N), dtype=torch.int64), reduction="none")
    exact_N.sum().backward()
    losses_N = one_pass(z_NV, torch.zeros(len(z_N), dtype=torch.int64), cap, 1)
    # An error of eps in a capped logit y is one of eps |y| in the loss.
    assert ((losses_N - exact_N).abs() <= 1e-6 + 4e-7 * capped.detach().abs().amax(1)).all()
    assert exact_NV.grad is not None
    assert (z_NV - exact_NV.grad).abs().max() < 4e-6


def test_nan_reaches_the_loss() -> None:
    x, w, targets = torch.randn(4, 8), torch.randn(11, 8), torch.arange(4)
    x[2, 3] = float("nan")
    losses = linear_cross_entropy(x, w, targets, 30.0, "none")
    assert losses.isnan().tolist() == [False, False, True, False]


def test_per_token_losses_average_to_the_mean() -> None:
    x, w, targets = torch.randn(3, 5, 8), torch.randn(11, 8), torch.randint(0, 11, (3, 5))
    mean = linear_cross_entropy(x, w, targets, 30.0)
    torch.testing.assert_close(linear_cross_entropy(x, w, targets, 30.0, "none").mean(), mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 11])}, "targets reach from 0 to 11; expected 0 to 10"),
        ({"targets": torch.tensor([0, -100])}, "targets reach from -100"),
        ({"targets": torch.zeros(2, dtype=torch.int32)}, "expected int64"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "targets has shape"),
        ({"w": torch.randn(11, 7)}, "do not fit"),
        ({"w": torch.randn(11, 8).double()}, "w is torch.float64"),
        ({"x": torch.zeros(2, 8, dtype=torch.int64)}, "x is torch.int64"),
        ({"x": torch.randn(0, 8), "targets": torch.zeros(0, dtype=torch.int64)}, "no tokens"),
        ({"softcap": -1.0}, "softcap = -1.0"),
        ({"softcap": float("nan")}, "softcap = nan"),
        ({"reduction": "sum"}, "reduction = 'sum'"),
    ],
)
def test_bad_input_names_the_tensor(change: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.randn(2, 8), "w": torch.randn(11, 8), "targets": torch.tensor([0, 1]), "softcap": 30.0}
    with pytest.raises(InputError, match=message):
        linear_cross_entropy(**{**arguments, **change})


def test_fp32_is_the_same_by_either_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def results() -> list[torch.Tensor]:
        x_ND, w_VD = torch.randn(1100, 48).requires_grad_(), torch.randn(700, 48).requires_grad_()
        linear_cross_entropy(x_ND, w_VD, torch.randint(0, 700, (1100,)), 30.0).backward()
        assert x_ND.grad is not None and w_VD.grad is not None
        return [x_ND.grad, w_VD.grad]

    monkeypatch.setattr(head, "CHUNK_LOGITS", 512 * 700)  # three chunks, the last a part
    found = []
    for by_onednn in (True, False):
        torch.manual_seed(0)
        with products.using(products.Route("fp32", onednn=by_onednn)):
            assert head._onednn_serves(torch.zeros(1, 48)) == by_onednn
            assert not head._onednn_serves(torch.zeros(1, 48).bfloat16())
            found.append(results())
    for ours, other in zip(*found, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-7)
