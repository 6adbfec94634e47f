"""Ids and targets outside of their tables, where nobody looks at them before the kernel, as on a GPU."""

from __future__ import annotations

import importlib

import pytest
import torch

from golfcore.ops import check, embed, linear_cross_entropy


@pytest.fixture(autouse=True)
def _nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in ("embed", "head"):
        monkeypatch.setattr(importlib.import_module(f"golfcore.ops.{op}"), "may_look", lambda _: False)


@pytest.mark.parametrize("width", [8, 5])
def test_an_id_outside_gives_nan_and_no_row_its_gradient(width: int) -> None:
    ids = torch.tensor([[3, 7, -1, 2, 3]])
    table = torch.randn(5, width, requires_grad=True)
    with check.on_simt(seed=3):
        x = embed(ids, table, bos=0, dtype=torch.float32)
        x.backward(torch.ones_like(x))
    assert x[0].isnan().all(1).tolist() == [False, True, True, False, False]
    assert torch.equal(x[0, [0, 3, 4]], table[[3, 2, 3]])
    assert table.grad is not None
    assert table.grad[:, 0].tolist() == [0, 0, 1, 2, 0]


@pytest.mark.parametrize("vocab", [16, 5])
def test_a_target_outside_makes_its_row_nan(vocab: int) -> None:
    x, w = torch.randn(4, 6, requires_grad=True), torch.randn(vocab, 6)
    with check.on_simt(seed=3):
        losses = linear_cross_entropy(x, w, torch.tensor([0, vocab, 2, -1]), softcap=5.0, reduction="none")
        losses[[0, 2]].sum().backward(retain_graph=True)
        inside = x.grad
        x.grad = None
        losses.sum().backward()
    assert losses.isnan().tolist() == [False, True, False, True]
    assert x.grad is not None
    assert inside is not None
    assert x.grad.isnan().all(1).tolist() == [False, True, False, True]
    assert torch.equal(x.grad[[0, 2]], inside[[0, 2]])
