"""What goes wrong on a device is told with operation, shapes and device, and blamed on the call that did it.

The host model plans CUDA's errors: where the device is selected, at a launch, or in a kernel for the next call to tell.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from golfcore import _simt
from golfcore.errors import DeviceError
from golfcore.ops import leaky2, mix_norm, registry, rms_norm, using

MEMORY, DRIVER, NO_IMAGE, ADDRESS = 2, 35, 209, 700
X = torch.randn(6, 32)


@pytest.fixture(autouse=True)
def simt() -> Iterator[None]:
    with using("simt"):
        yield
    _simt.forget_errors()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_waits", True)  # as GOLF_SYNC=1 has it


def told(call: object) -> str:
    with pytest.raises(DeviceError) as caught:
        call()  # type: ignore[operator]
    return str(caught.value)


@pytest.mark.parametrize(
    ("moment", "code", "expected"),
    [
        ("select", DRIVER, "cudaSetDevice: CUDA driver version is insufficient for CUDA runtime version; the driver "
         "serves CUDA 12.4 at most and this build needs 13.0: update the driver, or build golfcore with an older "
         "toolkit"),
        ("launch", NO_IMAGE, "no kernel image is available for execution on the device; this build holds no image for "
         "the device: install golfcore again, with CMAKE_CUDA_ARCHITECTURES naming it"),
        ("launch", MEMORY, "out of memory; lower train.micro_batch_tokens, or end what else uses the device"),
    ],
)  # fmt: skip
def test_an_error_at_the_call_names_operation_shapes_and_device(moment: str, code: int, expected: str) -> None:
    _simt.plan_error(moment, code)
    text = told(lambda: mix_norm(X, X, branch_gain=torch.ones(32)))
    assert text.startswith("norm on cpu of float32 (6, 32), float32 (6, 32), float32 (32,): ")
    assert text.endswith(expected)
    assert "GOLF_SYNC" not in text
    rms_norm(X)  # nothing is left of it


def test_an_illegal_address_is_told_by_the_next_call() -> None:
    _simt.plan_error("kernel", ADDRESS)
    rms_norm(X)
    text = told(lambda: leaky2(X.bfloat16()))
    assert text.startswith(
        "activation on cpu of bfloat16 (6, 32): an illegal memory access was encountered, noticed by "
    )
    assert "this process cannot use the device any more; start it again" in text
    assert text.endswith("an earlier kernel may be the cause: GOLF_SYNC=1 tells which")
    assert "an illegal memory access" in told(lambda: rms_norm(X))  # for good


@pytest.mark.usefixtures("waits")
def test_with_golf_sync_it_is_told_by_the_right_call() -> None:
    leaky2(X)
    _simt.plan_error("kernel", ADDRESS)
    text = told(lambda: rms_norm(X))
    assert text.startswith("norm on cpu of float32 (6, 32): an illegal memory access was encountered, noticed by ")
    assert "GOLF_SYNC" not in text
    assert _simt.device_lost()


def test_with_golf_sync_what_others_left_is_not_blamed_on_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    _simt.plan_error("kernel", ADDRESS)
    rms_norm(X)  # stands for a kernel of torch
    monkeypatch.setattr(registry, "_waits", True)
    text = told(lambda: leaky2(X))
    assert text.startswith("on cpu, before activation of float32 (6, 32), another operation failed: an illegal ")


@pytest.mark.usefixtures("waits")
def test_an_error_in_the_backward_pass_is_told_there() -> None:
    x = X.clone().requires_grad_()
    y = leaky2(x)
    _simt.plan_error("kernel", ADDRESS)
    text = told(lambda: y.sum().backward())
    assert text.startswith("activation on cpu of float32 (6, 32), float32 (6, 32): an illegal memory access")


def test_torch_out_of_memory_names_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("golfcore.ops.activation.torch.empty_like", full)
    text = told(lambda: leaky2(X))
    assert text == (
        "activation on cpu of float32 (6, 32): CUDA out of memory. Tried to allocate 2.00 GiB.; lower "
        "train.micro_batch_tokens"
    )


def test_long_lists_of_tensors_are_cut() -> None:
    text = registry._trouble("optim", [X] * 11, RuntimeError("no"))
    assert text.count("(6, 32)") == 8
    assert "and 3 more: no" in text


def test_a_gpu_that_kernels_cannot_use_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "why_not", lambda index: "the driver is older")
    registry._told_once.cache_clear()
    with pytest.warns(UserWarning, match=r"cannot run on cuda:3, so plain torch serves it.*the driver is older"):
        assert not registry._kernels_run(3)
    registry._kernels_run(3)  # from the cache: no second warning
    registry._told_once.cache_clear()


def test_unknown_moments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected select, launch or kernel"):
        _simt.plan_error("later", MEMORY)
