"""Write an operation with its own gradient and prove it as golfcore proves its kernels.

    python examples/own_operation.py

The operation is ``softplus(x)^2``. Its proof: computed in bf16, result and gradient may be off from the fp64 reference
by at most twice what plain torch in bf16 is off.
"""

import torch
from torch import Tensor

from golfcore.ops.check import error


class SoftplusSquared(torch.autograd.Function):
    """One pass forward and one backward, in fp32 inside, whatever comes in."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.softplus(x.float()).square().to(x.dtype)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        wide = x.float()
        return (dy.float() * 2 * torch.nn.functional.softplus(wide) * torch.sigmoid(wide)).to(x.dtype)


def with_gradient(operation, x: Tensor, dy: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = operation(x)
    y.backward(dy.to(y.dtype))
    return [y.detach(), x.grad]


def plain(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(x).square()


generator = torch.Generator().manual_seed(0)
x, dy = (torch.randn(64, 256, generator=generator).bfloat16() for _ in range(2))
exact = with_gradient(plain, x.double(), dy.double())
for name, ours, theirs, truth in zip(
    ("result", "gradient"), with_gradient(SoftplusSquared.apply, x, dy), with_gradient(plain, x, dy), exact, strict=True
):
    mine, torchs = error(ours, truth), error(theirs, truth)
    assert mine <= 2 * torchs, f"{name}: off by {mine:.2e}, plain torch by {torchs:.2e}"
    print(f"{name:<8} off by {mine:.2e}; plain torch in bf16 by {torchs:.2e}")
