"""The head in more chunks than one, as a GPU needs only at sizes that are too large for the host."""

from __future__ import annotations

import importlib

import pytest
import torch

from golfcore.ops import check
from golfcore.ops.cases import OP_CASES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["packs", "one-word", "strided"])
def test_weight_gradients_add_up_over_chunks(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    head = importlib.import_module("golfcore.ops.head")
    monkeypatch.setattr(head, "CHUNK_LOGITS_DEVICE", 1)
    monkeypatch.setattr(head, "MIN_CHUNK", 4)
    (case,) = (c for c in OP_CASES if c.op == "head" and c.name == name)
    parts: list[torch.Tensor] = []
    add = head._Torch.add_weight_gradient

    def counted(self: object, z: torch.Tensor, x: torch.Tensor) -> None:
        parts.append(z)
        add(self, z, x)

    monkeypatch.setattr(head._Torch, "add_weight_gradient", counted)
    with check.on_simt(seed=0):
        findings = check.parity(case, dtype)
    assert len(parts) > 5  # of the five draws
    for finding in findings:
        assert finding.ok, str(finding)
