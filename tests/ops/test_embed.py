"""The embedding beyond the table: document starts, gradients into a buffer, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from golfcore.errors import InputError
from golfcore.ops import embed


def parts(v: int = 11, d: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "table": torch.randn(v, d, generator=generator), "bigram": torch.randn(7, d, generator=generator),
        "bigram_scale": torch.tensor(0.5), "smear_w": torch.randn(4, generator=generator),
        "smear_lambda": torch.tensor(0.3),
    }  # fmt: skip


def test_nothing_crosses_a_document_start() -> None:
    """Each document embeds in a packed row as it does alone."""
    documents = [[1, 5, 6], [1], [1, 5, 6, 6, 2]]
    packed = embed(torch.tensor([id for document in documents for id in document]), **parts(), dtype=torch.float32)
    alone = [embed(torch.tensor(document), **parts(), dtype=torch.float32) for document in documents]
    assert torch.equal(packed, torch.cat(alone))


def test_gradients_go_into_a_buffer() -> None:
    ids = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    given = {name: part.requires_grad_() for name, part in parts().items()}
    table = given["table"]
    embed(ids, **given, dtype=torch.float32).square().sum().backward()
    expected, others = table.grad, {name: part.grad for name, part in given.items() if name != "table"}
    for part in given.values():
        part.grad = None
    buffer = torch.full_like(table, 2.0)
    embed(ids, **given, dtype=torch.float32, grad_into=buffer).square().sum().backward()
    assert expected is not None and table.grad is None
    torch.testing.assert_close(buffer - 2.0, expected)
    named = torch.unique(ids)
    rest = [row for row in range(len(table)) if row not in named]
    assert (buffer[rest] == 2.0).all()
    for name, grad in others.items():
        assert torch.equal(given[name].grad, grad), name


def test_gradients_go_into_a_buffer_when_compiled() -> None:
    ids, table = torch.tensor([3, 4, 4]), torch.randn(6, 5, requires_grad=True)
    buffer = torch.zeros(6, 5)

    def loss(buffer: torch.Tensor) -> torch.Tensor:
        return embed(ids, table, dtype=torch.float32, grad_into=buffer).sum()

    torch.compile(loss, fullgraph=True, backend="aot_eager")(buffer).backward()
    assert buffer.sum(1).tolist() == [0, 0, 0, 5, 10, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": torch.tensor([0, 11])}, "ids reach from 0 to 11; expected 0 to 10"),
        ({"ids": torch.tensor([-1])}, "ids reach from -1"),
        ({"ids": torch.tensor([1], dtype=torch.int32)}, "ids are torch.int32"),
        ({"ids": torch.zeros(1, 1, 1, dtype=torch.int64)}, "expected int64"),
        ({"table": torch.zeros(11, 8).bfloat16()}, "table is torch.bfloat16"),
        ({"table": torch.zeros(0, 8)}, "table has shape"),
        ({"bigram": torch.zeros(7, 9)}, "bigram has shape"),
        ({"bigram": torch.zeros(1, 8)}, "bigram has shape"),
        ({"bigram_scale": None}, "pass both or neither"),
        ({"smear_w": torch.zeros(9)}, "smear_w has shape"),
        ({"smear_lambda": torch.zeros(1)}, "smear_lambda has shape"),
        ({"grad_into": torch.zeros(10, 8)}, "grad_into has shape"),
        ({"grad_into": torch.zeros(8, 11).t()}, "grad_into is not contiguous"),
    ],
)
def test_bad_input_names_the_tensor(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        embed(**{"ids": torch.tensor([0, 3]), **parts(), **change})
