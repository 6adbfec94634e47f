"""A tape repeats a computation on its own memory: native functions, torch's operations, and nothing that it cannot."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from torch import Tensor

from golfcore import ops
from golfcore.errors import InputError
from golfcore.ops import registry
from golfcore.ops.bitpack import PackedWeight
from golfcore.ops.tape import Tape

D = 64
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(D, D, generator=GENERATOR)
PACKED = PackedWeight.from_codes(torch.randint(-20, 21, (D, D), generator=GENERATOR), torch.full((D, 1), 0.02))
GAIN = torch.rand(D, generator=GENERATOR)


def fresh(seed: int) -> Tensor:
    return torch.randn(1, D, generator=torch.Generator().manual_seed(seed))


def work(x: Tensor) -> Tensor:
    """Every kind of step: native functions, out forms, views, copies, in-place operations, several results."""
    h = ops.rms_norm(x)
    (y,), (z,) = ops.linear(h, WEIGHT), ops.linear(h, PACKED)
    _, h = ops.mix_norm(x, ops.relu2(y), branch_gain=GAIN)
    a, b = (h * torch.sigmoid(z)).chunk(2, -1)
    top, place = torch.cat((a.t(), b.t())).t().contiguous().topk(8)
    return torch.lerp(top, place.float(), 0.1).mul_(3).tanh_() + torch.where(top > 0, top, -1.0).sum(-1, keepdim=True)


def recorded(x: Tensor) -> tuple[Tape, Tensor]:
    tape = Tape()
    with torch.inference_mode(), tape.recording():
        result = work(x)
    return tape, result


def test_a_replay_computes_again_from_what_its_input_holds() -> None:
    x = fresh(1)
    tape, result = recorded(x)
    torch.testing.assert_close(result, work(x), rtol=0, atol=1e-6)
    gc.collect()
    others = [torch.full((1, D), 7.0) for _ in range(200)]  # would take the memory that a tape had let go
    for seed in (2, 3, 1):
        x.copy_(fresh(seed))
        with torch.inference_mode():
            tape.replay()
        torch.testing.assert_close(result, work(fresh(seed)), rtol=0, atol=1e-6)
    assert all((other == 7).all() for other in others)


def test_nothing_is_recorded_before_and_after() -> None:
    x = fresh(1)
    tape, _ = recorded(x)
    steps = len(tape._steps)
    work(x)
    assert len(tape._steps) == steps > 10
    assert registry._recorder is None


@pytest.mark.parametrize("read", [
    lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: int(x[0, 0]), lambda x: torch.equal(x, x),
])  # fmt: skip
def test_a_number_that_python_reads_is_refused(read: object) -> None:
    with torch.inference_mode(), pytest.raises(InputError, match="a tape cannot hold"), Tape().recording():
        read(fresh(1) + 1)  # type: ignore[operator]
    assert registry._recorder is None


def test_a_function_by_hand_decides_anew() -> None:
    x, tape, limit = fresh(1), Tape(), [0.0]

    def decide() -> Tensor:
        return x * 2 if float(x.sum()) > limit[0] else x.clone()

    limit[0] = float(x.sum()) + 1
    with torch.inference_mode(), tape.recording():
        result = tape.by_hand(decide) + 1
    torch.testing.assert_close(result, x + 1)
    limit[0] -= 2
    with torch.inference_mode():
        tape.replay()
    torch.testing.assert_close(result, 2 * x + 1)


def test_what_other_threads_compute_is_not_recorded() -> None:
    x, tape, done = fresh(1), Tape(), list[Tensor]()
    with torch.inference_mode(), tape.recording():
        thread = threading.Thread(target=lambda: done.append(work(fresh(2))))
        thread.start()
        thread.join()
        assert tape._steps == []
        work(x)
    torch.testing.assert_close(done[0], work(fresh(2)), rtol=0, atol=1e-6)
