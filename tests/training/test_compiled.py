"""torch.compile and CUDA graphs by config: they are tried before the clock starts, and what fails is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranked_training import ALONE, make_recipe
from tiny import TINY, VOCAB

from golfcore.model import get_family
from golfcore.training.compiled import choose_loss


def choose(**train: Any) -> tuple[Any, str, Any]:
    module = get_family("gpt").build(TINY, VOCAB, 0)
    loss_fn, how = choose_loss(module.loss, module, make_recipe(**train).train, 2, 16, ALONE)
    assert all(p.grad is None for p in module.parameters())
    return loss_fn, how, module


def test_eager_unless_asked_otherwise() -> None:
    loss_fn, how, module = choose()
    assert (loss_fn, how) == (module.loss, "eager")


def test_a_compiler_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    loss_fn, how, module = choose(compile=True)
    assert loss_fn == module.loss
    assert "torch.compile failed: RuntimeError: InvalidCxxCompiler: no working C++ compiler" in how


def test_graphs_on_a_cpu_are_left_out() -> None:
    loss_fn, how, module = choose(cuda_graphs=True)
    assert loss_fn == module.loss
    assert "no CUDA graphs: the device is a CPU" in how


def test_compiled_it_gives_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from golfcore.model.interface import Batch, Context

    monkeypatch.setattr(torch, "compile", lambda f, compile=torch.compile: compile(f, backend="aot_eager"))
    loss_fn, how, module = choose(compile=True)
    assert how == "compiled"
    ids_BT = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(0))
    arguments = Batch(ids_BT[:, :-1], ids_BT[:, 1:]), Context(torch.zeros(()))
    torch.testing.assert_close(loss_fn(*arguments)[0], module.loss(*arguments)[0])
