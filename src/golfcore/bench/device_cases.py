"""Make the cases of ``golfcore bench --device cuda``: the operations at the shapes of the frontier's step on one GPU.

A case is a row of the table of operations at another size. Its results are checked on fewer tokens of the same widths,
so that the reference in fp64 fits the GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from golfcore.bench.step_work import Shape
from golfcore.errors import DeviceError
from golfcore.gpu_specs import image_for
from golfcore.machine import core_info
from golfcore.ops.attention_backends import unavailable, using_attention
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.registry import why_not

CHECKED_ROWS = 2  # segments whose results are checked
ATTENTIONS = ("sdpa", "fa3")  # rivals that only attention has


def require_gpu(device: str) -> None:
    """Raise DeviceError, in one line, unless torch and golfcore's kernels can use ``device``."""
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "this torch is a CPU build"
        raise DeviceError(f"bench --device {device}: no GPU to run on ({built}); golfcore doctor says why")
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        raise DeviceError(f"bench --device {device}: there are {torch.cuda.device_count()} GPUs")
    if reason := why_not(index):
        raise DeviceError(f"bench --device {device}: golfcore's kernels cannot run there: {reason}")


def device_cases(shape: Shape) -> list[tuple[Case, Case]]:
    """Return (case to time, case to check) for each operation, at one GPU's share of a step.

    Attention is dense, in rows of a whole segment: torch's own takes a T x T mask for packed documents.
    """
    segment = shape.segments.longest
    rows = max(1, shape.tokens // segment)

    def both(id_: str, name: str, sizes: Callable[[int], dict[str, Any]], flops: float = 0.0) -> tuple[Case, Case]:
        timed, checked = (_resized(id_, f"{name}-frontier", sizes(count)) for count in (rows, min(rows, CHECKED_ROWS)))
        return replace(timed, flops=flops), checked

    d, heads, kv, h, t = shape.d, shape.heads, shape.kv_heads, shape.head_dim, segment
    head_flops = 6.0 * rows * t * shape.vocab * d
    return [
        *(both(f"norm/{kind}-pocket", kind, lambda b: {"shape": (b * t, d)}) for kind in ("plain", "scaled", "all")),
        both("residual/pocket", "stream", lambda b: {"shape": (b * t, d)}),
        both("qk/pocket-h64", "heads", lambda b: {"shape": (b, t, heads, kv, h), "half": h // 8}),
        both("attention/t1024-h64", "segments", lambda b: {"shape": (b, t, heads, kv, h)},
             7.0 * rows * heads * t * t * h),
        both("activation/leaky2-pocket", "leaky2", lambda b: {"shape": (b * t, shape.hidden)}),
        both("embed/contest", "tokens", lambda b: {"shape": (b, t), "v": shape.vocab, "d": d}),
        both("head/contest", "tokens", lambda b: {"n": b * t, "v": shape.vocab, "d": d}, head_flops),
        *((case, case) for case in OP_CASES if case.bench and case.op in ("optim", "bitpack")),
    ]  # fmt: skip


def _resized(id_: str, name: str, sizes: dict[str, Any]) -> Case:
    case = next(case for case in OP_CASES if case.id == id_)
    build = case.build
    if isinstance(build, partial):
        resized: Any = partial(build.func, *build.args, **{**build.keywords, **sizes})
    else:  # a row whose builder has its shape inside
        resized = partial(_cut, build, sizes["shape"])
    return replace(case, name=name, build=resized, shape=" ".join(f"{k} {v}" for k, v in sizes.items()))


def _cut(build: Callable[..., dict[str, Any]], shape: tuple[int, ...], *arguments: Any) -> dict[str, Any]:
    """Return a builder of tensors in which matrices are repeated or cut to ``shape``, and vectors to its width."""

    def fit(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        wanted = shape if x.ndim == 2 else shape[-1:]
        times = [-(-w // have) for w, have in zip(wanted, x.shape, strict=True)]
        return x.repeat(times)[tuple(slice(w) for w in wanted)].contiguous()

    return {name: fit(x) for name, x in build(*arguments).items()}


def about(environment: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the metadata of a row, with the GPU's name, multiprocessors and image in place of the processor's."""
    properties = torch.cuda.get_device_properties(torch.device(device))
    image = image_for(core_info().cuda_images, (properties.major, properties.minor))
    return {**environment, "cpu": properties.name, "cores": properties.multi_processor_count, "isa": image}


def attention_rivals(case: Case, names: Sequence[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Return other projects' attention kernels that are installed, behind our public function."""
    for name in names:
        if case.op == "attention" and name in ATTENTIONS and not unavailable(name):
            yield name, partial(_by, name, case.call)


def _by(name: str, call: Callable[..., Any], **arguments: Any) -> Any:
    with using_attention(name):
        return call(**arguments)
