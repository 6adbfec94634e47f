"""One row of the table that drives opcheck, parity, gradcheck and bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Tensors = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operation at one shape. The three functions take the built arguments by name and return a tensor or a tuple.

    Attributes:
        op: the operation, as ``kernels list`` names it.
        name: what is special about this row, unique within the operation.
        build: ``build(dtype, generator)`` -> arguments by name. Drawn in fp32 and rounded to ``dtype``, so that every
            dtype sees the same numbers; parameters of vectors stay fp32.
        call: the public function.
        reference: its reference.
        plain: the same in the torch that a user would write without golfcore, in the input's dtype. It sets the error
            that a kernel may have, and is what the bench compares with.
        grads: the arguments that get a gradient.
        dtypes: the input dtypes that the kernels serve.
        torch_products: whether torch multiplies matrices inside; its fp32 products may depend on the number of threads.
        gradcheck: whether the reference is small enough here for fp64 finite differences.
        in_place: where the work overwrites its arguments: (call, reference, plain) that do, for the bench to time; the
            three above then work on copies.
        bench: whether the bench runs it; such a row has a real model's shape and stays out of the tests.
        shape: what the bench prints.
        flops: arithmetic of one forward and backward, where it bounds the time; 0 where memory does.
        touched: bytes that one forward and backward must read and write at least, given the arguments.
    """

    op: str
    name: str
    build: Callable[[torch.dtype, torch.Generator], Tensors]
    call: Callable[..., Any]
    reference: Callable[..., Any]
    plain: Callable[..., Any]
    grads: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    torch_products: bool = False
    gradcheck: bool = False
    in_place: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]] | None = None
    bench: bool = False
    shape: str = ""
    flops: float = 0.0
    touched: Callable[[Tensors], float] = field(default=lambda _: 0.0)

    @property
    def id(self) -> str:
        """``activation/relu2-ragged``."""
        return f"{self.op}/{self.name}"


def normal(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normal numbers, drawn in fp32 whatever the dtype."""
    return torch.randn(*shape, generator=generator).to(dtype)


def outputs(result: Any) -> tuple[torch.Tensor, ...]:
    """Return the floating-point tensors among the results of a function."""
    results = result if isinstance(result, tuple | list) else (result,)
    return tuple(r for r in results if isinstance(r, torch.Tensor) and r.is_floating_point())


def with_grads(function: Callable[..., Any], case: Case, arguments: Tensors, seeds: list[torch.Tensor]) -> list[Any]:
    """Return outputs and gradients of ``function`` for the output gradients ``seeds`` (cast to each output's dtype)."""
    arguments = dict(arguments)
    for name in case.grads:
        arguments[name] = arguments[name].detach().requires_grad_()
    out = outputs(function(**arguments))
    if not case.grads:
        return [*out]
    taken = [arguments[name] for name in case.grads]
    kept = [(o, s.to(o.dtype)) for o, s in zip(out, seeds, strict=True) if o.requires_grad]
    grads = torch.autograd.grad([o for o, _ in kept], taken, [s for _, s in kept], allow_unused=True)
    return [*(o.detach() for o in out), *grads]
