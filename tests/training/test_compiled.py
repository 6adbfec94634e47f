"""torch.compile and CUDA graphs by config: both are tried before the clock starts, and what fails is left out."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, fake_gpu, model_on_gpu
from ranked_training import ALONE, make_recipe
from tiny import TINY, VOCAB
from torch import Tensor

from golfcore.config import RecipeConfig
from golfcore.data.contracts import TokenBatch
from golfcore.data.segments import segment_bounds
from golfcore.errors import DeviceError
from golfcore.model import get_family
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.ops.attention_backends import using_attention
from golfcore.quant.qat import aware_loss
from golfcore.ranks.world import World
from golfcore.recipes import load_recipe, recipe_names
from golfcore.training import compiled as compiled_module
from golfcore.training.compiled import Shape, choose_loss
from golfcore.training.feed import batches_of

NOW = Context(torch.zeros(()))


def choose(**train: Any) -> tuple[Any, str, Any]:
    module = get_family("gpt").build(TINY, VOCAB, 0)
    loss_fn, how = choose_loss(module.loss, module, make_recipe(**train).train, [Shape(2, 16)], ALONE)
    assert all(p.grad is None for p in module.parameters())
    return loss_fn, how, module


def test_eager_unless_asked_otherwise() -> None:
    loss_fn, how, module = choose()
    assert (loss_fn, how) == (module.loss, "eager")


def test_a_compiler_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: Any, **options: Any) -> Any:
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


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend=backend, **options))
    torch._dynamo.reset()


def test_compiled_it_gives_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, "aot_eager")
    loss_fn, how, module = choose(compile=True)
    assert how == "compiled"
    ids_BT = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(0))
    arguments = Batch(ids_BT[:, :-1], ids_BT[:, 1:]), NOW
    torch.testing.assert_close(loss_fn(*arguments)[0], module.loss(*arguments)[0])


def test_a_loss_of_more_than_one_graph_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, "eager")
    module = get_family("gpt").build(TINY, VOCAB, 0)

    def loss(batch: Batch, context: Context) -> Any:
        torch._dynamo.graph_break()
        return module.loss(batch, context)

    chosen, how = choose_loss(loss, module, make_recipe(compile=True).train, [Shape(2, 16)], ALONE)
    assert chosen is loss
    assert how.startswith("eager (torch.compile failed: ")


def test_every_shape_and_phase_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the compiler cannot take would else end the run in its warm-up."""
    with_backend(monkeypatch, "eager")
    module = get_family("gpt").build(dataclasses.replace(TINY, loop_layers="1", loop_starts=(0.5,)), VOCAB, 0)
    module.phase, seen = 0, []

    def loss(batch: Batch, context: Context) -> Any:
        if module.phase == 1 and batch.inputs_BT.size(1) == 8:
            torch._dynamo.graph_break()
        seen.append((*batch.inputs_BT.shape, module.phase))
        return module.loss(batch, context)

    shapes = [Shape(2, 16, 0), Shape(4, 8, 0), Shape(4, 8, 1)]
    _, how = choose_loss(loss, module, make_recipe(compile=True).train, shapes[:2], ALONE)
    assert how == "compiled"
    assert module.phase == 0
    _, how = choose_loss(loss, module, make_recipe(compile=True).train, shapes, ALONE)
    assert "torch.compile failed" in how
    assert module.phase == 0


def test_a_run_of_many_shapes_has_a_graph_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch keeps eight graphs of a function by itself, and one more than it keeps would be an error."""
    with_backend(monkeypatch, "eager")
    module = get_family("gpt").build(dataclasses.replace(TINY, num_layers=1), VOCAB, 0)
    shapes = [Shape(1, length) for length in range(2, 12)]
    _, how = choose_loss(module.loss, module, make_recipe(compile=True).train, shapes, ALONE)
    assert how == "compiled"


# --- graphs on a GPU --------------------------------------------------------------------------------------------------

GPT_RECIPES = [name for name in recipe_names() if load_recipe(name, environment={}).config.model_family == "gpt"]


def cut(config: RecipeConfig) -> RecipeConfig:
    """The recipe with every kind of layer and every phase that it has, but fewer and smaller ones."""
    model = config.model
    layers = {"num_layers": min(model.num_layers, 4), "model_dim": 128, "num_heads": 2, "num_kv_heads": 1}
    layers["rope_dims"] = model.rope_dims and 16
    layers["loop_layers"] = model.loop_layers and "1-2"
    layers["lanes_from"] = model.lanes_from and 3
    layers["max_segment"] = model.max_segment and 16
    train = dataclasses.replace(config.train, batch_tokens=256, micro_batch_tokens=128, seq_len=64)
    return dataclasses.replace(config, model=dataclasses.replace(model, **layers), train=train)


def batch_of(module: LanguageModel, documents: int, rows: int = 2, length: int = 64) -> Batch:
    """A batch on the fake GPU in which ``documents`` more documents start than rows do."""
    ids_BT = np.full((rows, length), 5, dtype=np.uint16)
    ids_BT.ravel()[: 2 * documents : 2] = 1
    rule = module.documents()
    host = TokenBatch(ids_BT, ids_BT, None if rule is None else segment_bounds(ids_BT, rule))
    return batches_of(host, rows, CUDA)[0]


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A stand-in for FlashAttention-3 that a compiler can trace; ``most``: tokens a segment, as it is to be told."""
    limit = {"most": 0}

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        return q * (k * v).repeat_interleave(q.shape[-2] // k.shape[-2], dim=-2)

    def flash_attn_varlen_func(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, longest_q: int, longest_k: int, **options: Any
    ) -> Tensor:
        if not longest_q == longest_k == limit["most"]:
            raise AssertionError(f"segments of {longest_q} tokens, expected {limit['most']}")
        return flash_attn_func(q, k, v) + cu_q.sum()

    module: Any = types.ModuleType("flash_attn_interface")
    module.flash_attn_func, module.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    return limit


@pytest.mark.parametrize(
    ("name", "attention"),
    [*((name, "own") for name in GPT_RECIPES), ("frontier_8xh100", "fa3"), ("baseline_8xh100", "fa3")],
)
def test_a_recipes_loss_on_a_gpu_is_one_graph_a_phase(
    name: str, attention: str, monkeypatch: pytest.MonkeyPatch, most: dict[str, int]
) -> None:
    """Counted with kernels that are there; batches of few and of many documents share the graph."""
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    config = cut(load_recipe(name, environment={}).config)
    most["most"] = config.model.max_segment or config.train.seq_len
    with_backend(monkeypatch, count)
    with fake_gpu(monkeypatch, watched=False), using_attention(attention):
        module = model_on_gpu(config, VOCAB)
        losses = [module.loss]
        if config.quant.qat != "off":
            losses.append(aware_loss(module, module.parameter_roles(), config.quant))
        phases = range(len(module.phase_starts()) + 1)
        shapes = [Shape(2, 64, phase) for phase in phases]
        for loss in losses:
            loss_fn, how = choose_loss(loss, module, config.train, shapes, World(rank=0, size=1, device=CUDA))
            if not config.train.compile:
                train = dataclasses.replace(config.train, compile=True)
                loss_fn, how = choose_loss(loss, module, train, shapes, World(rank=0, size=1, device=CUDA))
            assert how == "compiled"
            for phase in phases:
                module.phase = phase
                for documents in (3, 40):
                    loss_fn(batch_of(module, documents), Context(torch.zeros((), device=CUDA)))
    assert len(graphs) == len(losses) * len(phases)
    called = {node.target for node in graphs[0].graph.nodes if node.op == "call_function"}
    assert any("golf" in str(target) for target in called)  # the kernels' branch, not the reference's


# --- CUDA graphs ------------------------------------------------------------------------------------------------------


def replays(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A stand-in for capture and replay on the CPU, with torch's own way to hand out results: static memory.

    Returns the shapes of what was captured.
    """
    captured: list[tuple[Any, ...]] = []

    def make_graphed_callables(module: Any, arguments: tuple[Tensor, ...]) -> Callable[..., Any]:
        captured.append(tuple(a.shape for a in arguments))
        parameters = [p for p in module.parameters() if p.requires_grad]
        static = [torch.zeros_like(p) for p in parameters]

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Tensor) -> Any:
                ctx.given = inputs[: len(arguments)]
                with torch.no_grad():
                    return module(*ctx.given)

            @staticmethod
            def backward(ctx: Any, dloss: Tensor, dce: Tensor) -> Any:
                with torch.enable_grad():
                    loss, _ = module(*ctx.given)
                    found = torch.autograd.grad(loss, parameters, dloss, allow_unused=True)
                for buffer, gradient in zip(static, found, strict=True):
                    buffer.copy_(torch.zeros_like(buffer) if gradient is None else gradient)
                return (*[None] * len(arguments), *[buffer.detach() for buffer in static])

        return lambda *inputs: Replay.apply(*inputs, *parameters)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    return captured


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_replayed_gradients_add_up_over_micro_batches(micro_batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay hands out gradients in the memory of the last replay, where the first micro-batch left its own."""
    captured = replays(monkeypatch)
    module = get_family("gpt").build(TINY, VOCAB, 0)
    graphs = compiled_module._Graphs(module.loss, module)
    ids = torch.randint(0, VOCAB, (micro_batches, 2, 17), generator=torch.Generator().manual_seed(0))
    batches = [Batch(ids[i, :, :-1], ids[i, :, 1:]) for i in range(micro_batches)]
    found = []
    for loss_fn in (module.loss, graphs, graphs):  # a second step, after the gradients were given up
        for factor, batch in enumerate(batches, 1):
            (factor * loss_fn(batch, NOW)[0]).backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()])
        module.zero_grad(set_to_none=True)
    for eager, *replayed in zip(*found, strict=True):
        for gradient in replayed:
            torch.testing.assert_close(gradient, eager)
    assert len(captured) == 1


def test_batches_of_different_documents_share_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each capture keeps the memory of a whole step."""
    captured = replays(monkeypatch)
    module = get_family("gpt").build(dataclasses.replace(TINY, packed_documents=True, max_segment=9), VOCAB, 0)
    graphs = compiled_module._Graphs(module.loss, module)
    ids_BT = np.random.default_rng(0).integers(4, VOCAB, (2, 64)).astype(np.uint16)
    for documents in (0, 10, 40, 60):
        ids_BT[:, :documents] = 1
        rule = module.documents()
        assert rule is not None
        host = TokenBatch(ids_BT, ids_BT, segment_bounds(ids_BT, rule))
        (batch,) = batches_of(host, 2, torch.device("cpu"))
        torch.testing.assert_close(graphs(batch, NOW)[0], module.loss(batch, NOW)[0].detach())
    assert len(captured) == 1


def test_a_capture_that_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's allocator and random numbers stay in the capture that broke off, so nothing may follow it."""

    def broken(module: Any, arguments: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    with fake_gpu(monkeypatch):
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", broken)
        module = model_on_gpu(make_recipe(), VOCAB)
        world = World(rank=0, size=1, device=CUDA)
        with pytest.raises(
            DeviceError, match=r"cannot be captured \(RuntimeError: CUDA error: operation not permitted"
        ):
            choose_loss(module.loss, module, make_recipe(cuda_graphs=True).train, [Shape(2, 16)], world)
