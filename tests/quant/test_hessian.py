"""Hessians: what each tap sees, at every pass, over all ranks; and the text that they are collected on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from toys import looped

from golfcore.data.contracts import BOS
from golfcore.errors import InputError
from golfcore.model import get_family
from golfcore.model.gpt.model import GPT
from golfcore.ops import products
from golfcore.quant import hessian
from golfcore.quant.calibrate import RUN, check_disjoint, generated_rows, text_rows, training_rows
from golfcore.quant.hessian import Times, collect_hessians, rehearse
from golfcore.quant.hessian import _Alone as Alone
from golfcore.quant.measure import Probe, weights_on_cpu


def ids(rows: int, vocab_size: int = 40, seed: int = 0) -> Tensor:
    return torch.randint(0, vocab_size, (rows, 12), generator=torch.Generator().manual_seed(seed))


def test_a_looped_layer_is_counted_at_every_pass() -> None:
    model, rows = looped(), ids(3)
    found = collect_hessians(model, rows)
    x = model.embed(rows).flatten(0, 1).detach()
    expected = torch.zeros(16, 16)
    for _ in range(model.config.loops):
        expected += x.t() @ x
        x = x + torch.tanh(x @ model.core.weight.t()).detach()
    assert torch.allclose(found.of("core.weight"), expected, rtol=1e-4)  # type: ignore[arg-type]
    # a and b read the same tensor and share one matrix; the embedding is tapped where it multiplies.
    assert found.key == {"core.weight": "core.weight", "a.weight": "a.weight", "b.weight": "a.weight",
                         "embed.weight": "embed.weight"}  # fmt: skip
    h = model.hidden(rows).flatten(0, 1).detach()
    assert torch.allclose(found.of("embed.weight"), h.t() @ h, rtol=1e-4)  # type: ignore[arg-type]
    assert found.tokens == rows.numel() and found.of("unknown") is None


def test_batches_and_ranks_sum_to_the_same() -> None:
    model, rows = looped(), ids(8)
    whole = collect_hessians(model, rows)
    small = collect_hessians(model, rows, batch_tokens=24)
    half = [collect_hessians(model, part) for part in (rows[0::2], rows[1::2])]
    waiting = [half[1].matrix[key] for key in half[1].matrix]

    class First(Alone):
        def sum(self, mine: Tensor) -> Tensor:
            return mine.add_(waiting.pop(0) if mine.ndim else half[1].tokens)

    summed = collect_hessians(model, rows[0::2], ranks=First())
    for key, matrix in whole.matrix.items():
        assert torch.allclose(small.matrix[key], matrix, rtol=1e-4)
        assert torch.allclose(summed.matrix[key], matrix, rtol=1e-4)
    assert summed.tokens == whole.tokens


def test_the_baseline_shares_q_k_and_v_and_taps_o_after_attention() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    found = collect_hessians(model, ids(2, VOCAB))
    keys = {name: found.key[f"blocks.1.attn.{name}.weight"] for name in "qkvo"}
    assert keys == {"q": "blocks.1.attn.q.weight", "k": "blocks.1.attn.q.weight", "v": "blocks.1.attn.q.weight",
                    "o": "blocks.1.attn.o.weight"}  # fmt: skip
    roles = model.parameter_roles()
    assert found.key.keys() == {n for n, role in roles.items() if role.kind != "vector"}
    untied = get_family("gpt").build(
        type(TINY)(num_layers=1, model_dim=32, num_heads=4, num_kv_heads=2, tie_embeddings=False), VOCAB, 0
    )
    assert "head.weight" in untied.taps() and "embed.weight" not in untied.taps()


class Slow:
    """A clock that only passes move: each takes ``pass_s`` and the sum at the end ``closing_s``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pass_s: float, closing_s: float = 0.0) -> None:
        self.now = 100.0
        monkeypatch.setattr(hessian, "time", SimpleNamespace(monotonic=lambda: self.now))
        for name, seconds in (("add", pass_s), ("total", closing_s)):
            monkeypatch.setattr(hessian._Sums, name, self._slowed(getattr(hessian._Sums, name), seconds))

    def _slowed(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slowed(*arguments: Any) -> Any:
            self.now += seconds
            return function(*arguments)

        return slowed

    def until(self, end: float) -> Callable[[], float]:
        return lambda: end - self.now


def test_no_pass_begins_that_might_end_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, model = Slow(monkeypatch, 1.0, 0.5), looped()
    times = rehearse(model, 12, batch_tokens=36)
    assert times == Times(1.0, 0.5) and times.least_s == pytest.approx(2.25) and model.training
    began = clock.now
    found = collect_hessians(model, ids(9), batch_tokens=36, left=clock.until(began + 4.2), times=times)
    assert found.tokens == 72 and clock.now == began + 2.5  # a third pass and the sum might take 2.25 s
    late = collect_hessians(model, ids(9), batch_tokens=36, left=clock.until(clock.now + 2.2), times=times)
    assert late.tokens == 0 and not late.key and late.of("core.weight") is None


def test_the_slowest_rank_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank has three pieces, and after its second says that a third might end late."""
    said: list[tuple[float, ...]] = []

    class Faster(Alone):
        def largest(self, *values: float) -> tuple[float, ...]:
            if len(values) == 3:
                said.append(values)
                theirs = (1e-9 if len(said) < 3 else 1e9, -5.0, float(len(said) <= 3))
                return tuple(map(max, values, theirs))
            return values

    Slow(monkeypatch, 0.0)
    few, many = ids(1), ids(9)
    found = collect_hessians(looped(), few, batch_tokens=36, ranks=Faster(), left=lambda: 10.0)
    assert len(said) == 3 and found.tokens == 12  # this rank was done, and came to every comparison
    assert [values[2] for values in said] == [1.0, 0.0, 0.0]
    said.clear()
    assert collect_hessians(looped(), many, batch_tokens=36, ranks=Faster(), left=lambda: 10.0).tokens == 72


def test_a_rank_without_rows_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    model = looped()
    theirs = collect_hessians(model, ids(3))
    waiting = list(theirs.matrix.values())

    class Other(Alone):
        def sum(self, mine: Tensor) -> Tensor:
            return mine.add_(waiting.pop(0) if mine.ndim else theirs.tokens)

        def largest(self, *values: float) -> tuple[float, ...]:
            return values if len(values) == 3 else tuple(max(36.0, value) for value in values)

    found = collect_hessians(model, ids(0), ranks=Other())
    assert found.tokens == 36 and all(torch.equal(found.matrix[key], m) for key, m in theirs.matrix.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bf16_inputs_on_a_gpu_are_multiplied_into_fp32(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an fp32 copy of them; here the GPU's branch is taken on the CPU, by a product that widens as cuBLAS."""
    calls, real = [], torch.mm

    def mm(a: Tensor, b: Tensor, out_dtype: torch.dtype, *, out: Tensor | None) -> Tensor:
        calls.append((a.dtype, b.dtype, out_dtype))
        return real(a.float(), b.float(), out=out)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(products, "leaves_fp32", lambda x: x.dtype != torch.float32)
    sums, x_NI = hessian._Sums(looped()), torch.randn(50, 16).to(dtype)
    sums._add_input("core.weight", x_NI[None])
    sums._add_input("core.weight", x_NI[None])
    assert calls == ([(torch.bfloat16, torch.bfloat16, torch.float32)] * 2 if dtype == torch.bfloat16 else [])
    assert torch.allclose(sums.matrix["core.weight"], 2 * x_NI.float().t() @ x_NI.float(), rtol=1e-5)


def test_weights_come_to_the_processor_and_measuring_stays_on_the_gpu() -> None:
    """On fake tensors of a GPU, which know their device and dtype and hold no numbers."""
    with torch.no_grad(), FakeTensorMode():
        model = looped()
        for part in model.modules():
            for name, parameter in part.named_parameters(recurse=False):
                part._parameters[name] = torch.nn.Parameter(torch.empty(parameter.shape, device="cuda"))
        state = weights_on_cpu(model)
        assert {p.device.type for p in model.parameters()} == {"cuda"}
        assert {w.device.type for w in state.values()} == {"cpu"} and len(state) == 4
        probe, sums = Probe(model, torch.zeros(2, 16, dtype=torch.int64)), hessian._Sums(model)
        assert [(x.device.type, x.dtype) for x in probe.before] == [("cuda", torch.float32)]
        sums.add(torch.zeros(2, 16, dtype=torch.int64))
        for x_NI, takes in ((torch.empty(8, 16, device="cuda", dtype=torch.bfloat16), True), (probe.before[0], False)):
            assert products.leaves_fp32(x_NI) == takes
        sums._add_input("core.weight", torch.empty(8, 16, device="cuda", dtype=torch.bfloat16))
        assert {(x.device.type, x.dtype) for x in sums.matrix.values()} == {("cuda", torch.float32)}
        assert not products.leaves_fp32(state["a.weight"].bfloat16())


def test_no_logits_are_computed_for_hessians(monkeypatch: pytest.MonkeyPatch) -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    assert isinstance(model, GPT)
    with_logits = collect_hessians(looped(), ids(2))  # a family that does not override run_taps

    def forbidden(*_: Any) -> Tensor:
        raise AssertionError("the logits")

    monkeypatch.setattr(model, "head_logits", forbidden)
    found = collect_hessians(model, ids(2, VOCAB))
    assert "embed.weight" in found.key and "embed.weight" in with_logits.key


def test_bad_activations_and_empty_text_are_named() -> None:
    model = looped()
    with pytest.raises(InputError, match="calibration text has no tokens"):
        collect_hessians(model, ids(0))
    with torch.no_grad():
        model.embed.weight[3] = float("nan")
    with pytest.raises(InputError, match=r"core\.weight: its inputs are NaN"):
        collect_hessians(model, ids(2))


def test_training_rows_are_spread_and_shared_over_ranks() -> None:
    from golfcore.data.shards import ShardSet

    class Shards:
        data = np.arange(1000, dtype=np.uint16)

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, piece: slice) -> np.ndarray:
            return self.data[piece]

    shards: ShardSet = Shards()  # type: ignore[assignment]
    rows = training_rows(shards, 50, 10)
    assert rows.shape == (5, 10) and rows[0, 0] == 0 and rows[-1, -1] == 999
    parts = [training_rows(shards, 50, 10, rank=r, world=2) for r in (0, 1)]
    assert torch.equal(parts[0], rows[0::2]) and torch.equal(parts[1], rows[1::2])
    with pytest.raises(InputError, match="expected at least one row"):
        training_rows(shards, 50, 2000)
    assert text_rows(np.arange(305, dtype=np.uint16), 100).shape == (3, 100)
    assert text_rows(np.arange(305, dtype=np.uint16), 400).shape == (1, 305)
    for few in (0, 6, 255):
        with pytest.raises(InputError, match=f"has {few} tokens, expected at least 256"):
            text_rows(np.zeros(few, np.uint16), 10)


def test_calibration_text_of_the_validation_text_is_refused() -> None:
    rng = np.random.default_rng(0)
    documents = [np.concatenate(([BOS], rng.integers(4, 60, 30))).astype(np.uint16) for _ in range(6)]
    validation = np.concatenate(documents[:3])
    check_disjoint(np.concatenate(documents[3:]), validation)
    with pytest.raises(InputError, match="overlaps the validation text: its document at token 31"):
        check_disjoint(np.concatenate((documents[4], documents[1])), validation)


def test_a_part_of_the_validation_text_is_refused_wherever_its_documents_end() -> None:
    rng = np.random.default_rng(1)
    validation, own = (rng.integers(4, 60, 1000).astype(np.uint16) for _ in range(2))
    for start in (0, 333, 1000 - RUN):
        for at in (0, 700, 1000):
            piece = validation[start : start + RUN]
            with pytest.raises(InputError, match=rf"{RUN} tokens from token {at} on are also validation text"):
                check_disjoint(np.concatenate((own[:at], piece, own[at:])), validation)
            check_disjoint(np.concatenate((own[:at], piece[1:], own[at:])), validation)
    check_disjoint(own[:5], validation)
    check_disjoint(own, validation[:5])


def test_a_model_writes_its_own_calibration_text() -> None:
    model = looped()
    with torch.no_grad():
        model.embed.weight.mul_(0.1)  # a flat distribution
    rows = generated_rows(model, 60, 12, seed=1)
    assert rows.shape == (5, 12) and (rows[:, 0] == BOS).all() and int(rows.max()) < 40
    assert torch.equal(rows, generated_rows(model, 60, 12, seed=1))
    assert not torch.equal(rows, generated_rows(model, 60, 12, seed=2))
