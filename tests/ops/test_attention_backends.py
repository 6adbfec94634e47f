"""Attention by others: the same result, the right calls, a choice that is stated, errors that name what is absent."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from golfcore.errors import UsageError
from golfcore.ops import attention, attention_backends
from golfcore.ops.attention_backends import NAMES, choose, chosen, using_attention
from golfcore.ops.reference.attention import attention as reference

CPU = torch.device("cpu")


def tensors(heads: int = 4, kv_heads: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, 24, n, 32, generator=generator).to(dtype).requires_grad_() for n in (heads, kv_heads, kv_heads)
    ]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    "options", [{}, {"xsa": True}, {"scale": 0.3}, {"window": 5}, {"packed": True}, {"gated": True}]
)
def test_sdpa_gives_what_the_reference_gives(options: dict[str, Any], kv_heads: int) -> None:
    q, k, v = tensors(kv_heads=kv_heads)
    more = {key: value for key, value in options.items() if key not in ("packed", "gated")}
    if options.get("packed"):
        more["cu_seqlens"] = torch.tensor([0, 7, 24], dtype=torch.int32)
    if options.get("gated"):
        more["gate_BTN"] = torch.linspace(0, 1, 24 * 4).view(1, 24, 4)
    results = []
    for function, name in ((attention, "sdpa"), (reference, "own")):
        with using_attention(name):
            y = function(q, k, v, **more)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), (q, k, v))))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for FlashAttention-3: its interface, our reference, and the options of every call."""
    calls: list[dict[str, Any]] = []

    def options_of(softmax_scale: float | None, causal: bool, window_size: tuple[int, int]) -> dict[str, Any]:
        assert causal
        assert window_size[1] == 0
        return {"scale": softmax_scale, "window": window_size[0] + 1}

    def flash_attn_func(q: Any, k: Any, v: Any, **options: Any) -> torch.Tensor:
        calls.append(options)
        return reference(q, k, v, **options_of(**options))

    def flash_attn_varlen_func(
        q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, longest_q: int, longest_k: int, **options: Any
    ) -> tuple[torch.Tensor, None]:
        calls.append({**options, "longest": longest_q})
        assert longest_q == longest_k >= int((cu_q[1:] - cu_q[:-1]).max())
        return reference(q[None], k[None], v[None], cu_seqlens=cu_k, **options_of(**options))[0], None

    module = types.ModuleType("flash_attn_interface")
    module.flash_attn_func, module.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    return calls


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"cu_seqlens": torch.tensor([0, 7, 24], dtype=torch.int32)}])
def test_flash_attention_3_is_called_as_it_wants_to_be(flash: list[dict[str, Any]], options: dict[str, Any]) -> None:
    q, k, v = tensors(dtype=torch.bfloat16)
    with using_attention("fa3"):
        y = attention(q, k, v, xsa=True, **options)
    assert len(flash) == 1
    torch.testing.assert_close(y, reference(q, k, v, xsa=True, **options), rtol=0.02, atol=0.02)
    with using_attention("fa3"):  # fp32 is not for it
        attention(*tensors())
    assert len(flash) == 1


def test_flash_attention_3_is_told_the_longest_document(flash: list[dict[str, Any]]) -> None:
    """It launches blocks for as many tokens: for the whole row, a hundred times too many."""
    q, k, v = tensors(dtype=torch.bfloat16)
    packed = torch.tensor([0, 7, 14, 24, 24, 24], dtype=torch.int32)  # padded with empty documents
    with using_attention("fa3"):
        for longest in (10, 0):
            y = attention(q, k, v, cu_seqlens=packed, longest=longest)
            torch.testing.assert_close(y, reference(q, k, v, cu_seqlens=packed), rtol=0.02, atol=0.02)
    assert [call["longest"] for call in flash] == [10, 24]
    assert torch.equal(attention(q, k, v, cu_seqlens=packed, longest=10), attention(q, k, v, cu_seqlens=packed))


def test_a_call_imports_nothing(flash: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile cannot trace an import."""

    def no_import(name: str) -> Any:
        raise AssertionError(f"import of {name}")

    q, k, v = tensors(dtype=torch.bfloat16)
    with using_attention("fa3"), using_attention("own"), using_attention("fa3"):
        monkeypatch.setattr(attention_backends.importlib, "import_module", no_import)
        attention(q, k, v)
    assert len(flash) == 1
    assert attention_backends._flash is None


def test_the_trial_of_packed_documents_is_of_these(flash: list[dict[str, Any]]) -> None:
    bounds = torch.tensor([0, 5, 16, 32], dtype=torch.int32)
    shape = (2, 16, 4, 2, 32, torch.bfloat16, CPU)
    _, why = choose("auto", attention, *shape, bounds, 16)
    assert "sdpa: keeps no documents apart" in why
    assert {call["longest"] for call in flash} == {16}
    assert choose("fa3", attention, *shape, bounds, 16) == ("fa3", "as the recipe says")


@pytest.mark.parametrize("error", [TypeError("got an unexpected keyword\nargument 'causal'"), AttributeError("gone")])
def test_a_version_with_another_interface_is_no_choice(
    flash: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def other(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(sys.modules["flash_attn_interface"], "flash_attn_func", other)
    shape = (2, 16, 4, 2, 32, torch.bfloat16, CPU)
    name, why = choose("auto", attention, *shape)
    assert name != "fa3"
    assert f"fa3: {' '.join(str(error).split())}" in why
    with pytest.raises(UsageError, match=r"train\.attention = 'fa3' fails: "):
        choose("fa3", attention, *shape)


def test_the_choice_is_a_measurement_that_the_log_can_state(flash: list[dict[str, Any]]) -> None:
    name, why = choose("auto", attention, 2, 16, 4, 2, 32, torch.bfloat16, CPU)
    assert name in NAMES
    assert why.startswith("measured; own: ")
    assert all(f"{each}: " in why and " ms" in why for each in NAMES)
    assert flash
    assert choose("sdpa", attention, 2, 16, 4, 2, 32, torch.bfloat16, CPU) == ("sdpa", "as the recipe says")


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    _, why = choose("auto", attention, 1, 8, 2, 2, 32, torch.float32, CPU)
    assert "fa3: FlashAttention-3 is not installed" in why
    with pytest.raises(UsageError, match="FlashAttention-3 is not installed; use auto"):
        choose("fa3", attention, 1, 8, 2, 2, 32, torch.float32, CPU)
    assert chosen() == "own"


@pytest.mark.parametrize(
    "raised",
    [
        ImportError("_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEa"),
        OSError("libcudart.so.12: cannot open shared object file"),
        RuntimeError("Tried to register an operator with the same name and the same overload name\nmultiple times"),
        AttributeError("'_OpNamespace' 'flash_attn_3' object has no attribute 'fwd'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_flash_attention_of_another_abi_is_one_line_with_what_it_would_have_to_fit(
    raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "flash_attn_interface.py").write_text(f"raise {raised!r}\n")
    name, why = choose("auto", attention, 1, 8, 2, 2, 32, torch.float32, CPU)
    assert name != "fa3"
    text = " ".join(str(raised).split())
    said = (
        f"FlashAttention-3 cannot be imported ({text}), it was built for another torch or CUDA than {torch.__version__}"
    )
    assert said in why
    with pytest.raises(UsageError) as caught:
        choose("fa3", attention, 1, 8, 2, 2, 32, torch.float32, CPU)
    assert said in str(caught.value)
    assert str(caught.value).endswith("; use auto, own or sdpa")
