"""``golfcore bench``: time operations and steps against plain torch in one process."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from golfcore.cli import output
from golfcore.cli.options import Bytes, Count
from golfcore.ranges import POSITIVE, SOME_SECONDS

if TYPE_CHECKING:
    from golfcore.bench.harness import Row
    from golfcore.bench.roofline import Floor
    from golfcore.bench.store import Change


def bench(
    case: str | None = None, /, *, vs: str | None = None,
    seconds: Annotated[float, Parameter(validator=SOME_SECONDS)] = 2.0,
    save: str | None = None, compare: str | None = None, results: Path = Path("bench/results"),
    weights: Annotated[list[str], Parameter(negative="")] | None = None, widths: str = "int4,int6,int8,ternary",
    script: Path | None = None, methods: str = "contest,curve,states,fit", fit: Bytes = 0, tokens: Count = 32_768,
    calibration_tokens: Annotated[int, Parameter(validator=POSITIVE)] = 32_768,
    wall: Annotated[bool, Parameter(negative="")] = False, device: str = "cpu", recipe: str | None = None,
    compile: bool | None = None, cuda_graphs: bool | None = None, profile: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:  # fmt: skip
    """Time operations, forward and backward, against plain torch; results are checked before anything is timed.

    ``golfcore bench roofline`` predicts on paper the least time of each operation of the frontier's step on an H100.
    ``golfcore bench train_step --recipe R`` times whole steps of a recipe, as a run does them on one of eight GPUs.
    ``golfcore bench pack`` compares the bytes and speeds of the entropy coders with general compressors instead, and
    ``golfcore bench quant`` the quantizers with the contest's pipeline.

    Args:
        case: An operation (norm), one case (norm/all-pocket) or a pattern (`*/*-pocket`); default: all of them. Or
            pack, quant, or roofline.
        vs: Rivals to compare with: torch, compile (torch.compile of the same lines), reference; "" for none; default:
            torch,compile (on a GPU torch,compile,sdpa,fa3). With pack: brotli, zstd, lrzip; default: all of them.
        seconds: Seconds per case and dtype, over all contenders.
        save: Append the rows to RESULTS/SAVE.csv.
        compare: Show the change against the last rows in RESULTS/COMPARE.csv.
        results: Folder of saved results.
        weights: With pack, NAME=FILE: a run folder, a checkpoint or a .safetensors file whose matrices are coded. With
            quant, NAME=FOLDER: a run folder.
        widths: With pack: widths of symbols, out of int4, int6, int8, ternary.
        script: With pack: a source file on which ways to store code are compared.
        methods: With quant: contest, the contest's pipeline at its own k; curve, at other k; states, golfcore's methods
            at that k; fit, its search; lqer, its search with other ranks of corrections.
        fit: With quant: bytes, with code and tokenizer, that both pipelines are also made to fill.
        tokens: With quant: tokens of validation text; 0 for all.
        calibration_tokens: With quant: tokens of training text for Hessians.
        wall: With quant: measure only times, ours and those of plain torch.
        device: cpu, or cuda (cuda:1): operations at the shapes of frontier_8xh100's step, timed by the GPU's events
            with a cold L2 cache. Further rivals there: sdpa, fa3 (FlashAttention-3, if it is installed).
        recipe: With train_step: a recipe that comes with golfcore, or a .toml file, whose steps are timed in each of
            its phases: one GPU's share of eight, or on a processor its first 512 tokens. Default on a GPU:
            frontier_8xh100; on a processor pocket's step is compared with plain torch.
        compile: With a recipe: compile the loss or not, in place of train.compile; a processor compiles only if asked.
        cuda_graphs: With a recipe: capture the loss as CUDA graphs or not, in place of train.cuda_graphs.
        profile: With a recipe: write torch's profile of a step to this file, for ui.perfetto.dev.
        json: Print one JSON document instead of tables.
    """
    whole = recipe is not None or compile is not None or cuda_graphs is not None or profile is not None
    if whole or (case == "train_step" and device != "cpu"):
        return _steps(case, recipe, device, compile, cuda_graphs, profile, json)
    if case == "roofline":
        return _roofline(json)
    if case == "quant":
        return _quant(weights or [], methods, fit, (tokens, calibration_tokens), wall, save, results, json)
    if case == "pack":
        return _pack(vs, weights or [], widths, script, save, results, json)
    return _operations(case, vs, seconds, save, compare, results, device, json)


def _operations(
    case: str | None, vs: str | None, seconds: float, save: str | None, compare: str | None, results: Path, device: str,
    json: bool,
) -> int:  # fmt: skip
    from golfcore.bench import store
    from golfcore.bench.clocks import DeviceClock
    from golfcore.bench.device_cases import about, require_gpu
    from golfcore.bench.harness import measure_ceilings, run
    from golfcore.bench.workloads import parse_rivals, select
    from golfcore.machine import environment
    from golfcore.ops.memory import keep_freed_memory

    found, clock = environment(), None
    if _on_gpu(device):
        require_gpu(device)
        clock, found = DeviceClock(device), about(found, device)
    usual = "torch,compile" if device == "cpu" else "torch,compile,sdpa,fa3"
    workloads = select(case, parse_rivals(usual if vs is None else vs), device)
    before = store.read(store.path_of(results, compare)) if compare else []
    target = store.path_of(results, save) if save else None
    keep_freed_memory()
    ceilings = measure_ceilings(device=device, clock=clock)
    header = store.about(found, ceilings)
    rows: list[Row] = []
    for workload in workloads:
        output.err.print(f"{workload.case} {workload.dtype} {workload.shape}", markup=False)
        measured = run(workload, ceilings, seconds, clock=clock)
        if target:
            store.save(target, header, measured)  # at once: a later case may fail its check
        rows += measured
    changes = store.compare(before, rows)
    if json:
        document: dict[str, Any] = {"machine": header, "rows": [asdict(row) for row in rows]}
        output.print_json(document | ({"changes": [asdict(c) for c in changes]} if compare else {}))
        return 0
    _print_rows(rows, header)
    if compare:
        _print_changes(changes, compare)
    if target:
        output.out.print(f"appended to {target}", markup=False)
    return 0


def _on_gpu(device: str) -> bool:
    from golfcore.errors import UsageError

    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", device):
        raise UsageError(f"--device {device}: expected cpu, cuda or cuda:1")
    return device != "cpu"


def _steps(
    case: str | None, recipe: str | None, device: str, compile: bool | None, cuda_graphs: bool | None,
    profile: Path | None, json: bool,
) -> int:  # fmt: skip
    from torch import device as torch_device

    from golfcore.bench.device_cases import require_gpu
    from golfcore.bench.device_step import CPU_TOKENS, GPUS, measure_steps
    from golfcore.errors import UsageError
    from golfcore.recipes import load_recipe

    if case != "train_step":
        raise UsageError("--recipe, --compile, --cuda-graphs and --profile belong to golfcore bench train_step")
    if _on_gpu(device):
        require_gpu(device)
    name = recipe or ("frontier_8xh100" if device != "cpu" else "pocket")
    place = torch_device("cuda:0" if device == "cuda" else device)
    config = load_recipe(name, environment={}).config
    found = measure_steps(config, place, compile=compile, cuda_graphs=cuda_graphs, trace=profile)
    if json:
        output.print_json({"steps": [asdict(times) for times in found], "profile": str(profile) if profile else None})
        return 0
    numbers = ("tokens", "forward ms", "backward ms", "update ms", "host ms", "step ms", "peak MB")
    table = output.plain_table("phase", "layers", *numbers, right=numbers)
    for times in found:
        table.add_row(
            str(times.phase), str(times.layers or ""), f"{times.tokens:,}",
            *(f"{ms:.2f}" for ms in (
                times.forward_ms, times.backward_ms, times.update_ms, times.queued_ms, times.step_ms
            )),
            f"{times.peak_bytes / 1e6:.0f}",
        )  # fmt: skip
    output.print_table(table)
    share = f"one of {GPUS} shares of its step" if device != "cpu" else f"at most {CPU_TOKENS} tokens of its step"
    output.out.print(
        f"\n{config.name} on {place}, {share}, one rank: gradients are not reduced, all matrices are orthogonalized\n"
        f"loss: {found[0].how}; attention: {found[0].attention}", markup=False,
    )  # fmt: skip
    if profile:
        output.out.print(f"profile written to {profile}", markup=False)
    return 0


def _roofline(json: bool) -> int:
    from golfcore.bench.launch_shapes import launches, served
    from golfcore.bench.roofline import ASSUMPTIONS, document, mends, packed_floors, predict
    from golfcore.bench.step_work import shape_of
    from golfcore.errors import BuildError
    from golfcore.gpu_specs import H100
    from golfcore.ops.cubin import built_kernels
    from golfcore.recipes import load_recipe

    recipe = load_recipe("frontier_8xh100", environment={}).config
    shape = shape_of(recipe)
    try:
        pairs = served(launches(shape), built_kernels(H100.image))
        kernels = {work: [kernel for kernel, _ in found] for work, found in pairs.items()}
        note = "instruction estimates are from this build's machine code"
    except BuildError as error:
        kernels, note = {}, f"without instruction estimates: {error}"
    steps, packed, changes = predict(recipe, kernels), packed_floors(shape, kernels), mends(recipe, kernels)
    if json:
        output.print_json(document(steps, packed, changes) | {"note": note})
        return 0
    for step in steps:
        output.out.print(f"{recipe.name}, {step.passes} layers run, {shape.tokens:,} tokens per GPU", markup=False)
        _print_floors(step.floors)
        logged = f"; the contest's best entry logged {step.logged_ms} ms" if step.logged_ms else ""
        output.out.print(f"floor {step.floor_ms:.1f} ms, predicted {step.predicted_ms:.1f} ms{logged}\n", markup=False)
    output.out.print("each change of the code, predicted with all before it", markup=False)
    layers = [f"ms, {step.passes} layers" for step in steps]
    table = output.plain_table("change", *layers, right=layers)
    for change in changes:
        table.add_row(change.what, *(f"{ms:.1f}" for ms in change.ms.values()))
    output.print_table(table)
    output.out.print("\nquantized operations, on a matrix of the MLP in six bits", markup=False)
    _print_floors(packed)
    output.out.print("\n".join(["\nassumptions", *(f"- {line}" for line in ASSUMPTIONS)]), markup=False)
    output.out.print(f"\na model on paper, not a measurement: docs/results/roofline.md; {note}", markup=False)
    return 0


def _print_floors(floors: Sequence[Floor]) -> None:
    numbers = ("calls", "MB", "GFLOP", "floor us", "issue us", "predicted us", "ms per step")
    table = output.plain_table("operation", "by", *numbers, "limiter", right=numbers)
    for floor in floors:
        work = floor.work
        table.add_row(
            work.name, work.op, str(work.calls), f"{(work.read + work.written) / 1e6:.1f}",
            f"{(work.products + work.mma + work.fp32) / 1e9:.1f}", f"{floor.floor_us:.1f}",
            f"{floor.times['issue']:.1f}" if "issue" in floor.times else "", f"{floor.predicted_us:.1f}",
            f"{floor.predicted_step_us / 1e3:.2f}", floor.limiter,
        )  # fmt: skip
    output.print_table(table)


def _pack(
    vs: str | None, weights: list[str], widths: str, script: Path | None, save: str | None, results: Path, json: bool
) -> int:
    from golfcore.bench import pack, store
    from golfcore.machine import environment

    found = environment()
    header = pack.about(found)
    target = store.path_of(results, save) if save else None
    rivals = pack.RIVALS if vs is None else pack.parse_choice("vs", vs, pack.RIVALS)
    chosen = pack.parse_choice("widths", widths, list(pack.WIDTHS))
    with output.progress("pack") as tick:
        rows = pack.rows(pack.parse_weights(weights), widths=chosen, rivals=rivals, script=script, tick=tick)
    if target:
        store.append(target, header, rows)
    if json:
        output.print_json({"machine": header, "rows": [asdict(row) for row in rows]})
        return 0
    numbers = ("weights", "bytes", "bits each", "encode M/s", "decode M/s")
    table = output.plain_table("model", "what", "pipeline", *numbers, right=numbers)
    for row in rows:
        rates = (row.rate(row.encode_s), row.rate(row.decode_s))
        table.add_row(
            row.checkpoint, row.what, row.pipeline, f"{row.weights:,}",
            "absent" if row.bytes is None else f"{row.bytes:,}",
            "" if row.bits_per_weight is None else f"{row.bits_per_weight:.4f}",
            *("" if rate is None else f"{rate:.1f}" for rate in rates),
        )  # fmt: skip
    output.print_table(table)
    output.out.print(f"\n{header['cpu']}, golfcore on one core; commit {header['commit']}", markup=False)
    if target:
        output.out.print(f"appended to {target}", markup=False)
    return 0


def _quant(
    weights: list[str], methods: str, fit: int, tokens: tuple[int, int], wall: bool, save: str | None, results: Path,
    json: bool,
) -> int:  # fmt: skip
    from golfcore.bench import quant, store
    from golfcore.bench.pack import parse_choice, parse_weights
    from golfcore.errors import UsageError
    from golfcore.machine import environment
    from golfcore.ops.memory import keep_freed_memory

    if not weights or min(fit, *tokens) < 0:
        raise UsageError("golfcore bench quant: expected --weights NAME=RUN_FOLDER, and no negative numbers")
    found = environment()
    header = {"date": found["started"], "commit": found["commit"] + ("+" if found["dirty"] else "")}
    header |= {key: found[key] for key in ("cpu", "cores", "isa", "torch")}
    target = store.path_of(results, save) if save else None
    chosen = parse_choice("methods", methods, quant.METHODS)
    keep_freed_memory()
    rows: list[quant.QuantRow] = []
    summaries: dict[str, Any] = {}
    with output.progress("quant") as tick:
        for name, run in parse_weights(weights).items():
            subject = quant.Subject(name, run, tokens=tokens[0], calibration_tokens=tokens[1])
            part = quant.timed_rows(subject) if wall else quant.rows(subject, methods=chosen, cap=fit, tick=tick)
            rows += part
            if not wall:
                summaries[name] = {"equal_kl": quant.equal_kl(part), "gains_db": quant.gains_db(part)}
            if target:  # a long run keeps what it has
                store.append(target, header, part)
    if json:
        output.print_json({"machine": header, "rows": [asdict(row) for row in rows], "summary": summaries})
        return 0
    numbers = ("bytes", "bits each", "entropy", "Hessian dB", "KL x 1000", "bits per byte", "seconds")
    table = output.plain_table("model", "seed", "method", *numbers, right=numbers)
    for row in rows:
        table.add_row(
            row.checkpoint, str(row.seed), row.method, "" if row.bytes is None else f"{row.bytes:,}",
            *("" if v is None else f"{v:.{digits}f}" for v, digits in (
                (row.bits_per_weight, 4), (row.entropy, 4), (row.hessian_error_db, 2),
                (None if row.kl is None else 1000 * row.kl, 3), (row.val_bpb, 5), (row.seconds, 2),
            )),
        )  # fmt: skip
    output.print_table(table)
    for name, summary in summaries.items():
        if (equal := summary["equal_kl"]) is not None:
            output.out.print(
                f"{name}: at the contest's divergence {equal['golfcore_bytes']:,.0f} bytes instead of "
                f"{equal['contest_bytes']:,.0f}, {equal['saved']:.1%} fewer", markup=False,
            )  # fmt: skip
        gains = ", ".join(f"{method} {gain:+.2f} dB" for method, gain in summary["gains_db"].items())
        output.out.print(f"{name}: against scalar GPTQ at equal entropy: {gains}", markup=False)
    if target:
        output.out.print(f"appended to {target}", markup=False)
    return 0


def _print_rows(rows: Sequence[Row], header: Mapping[str, Any]) -> None:
    numbers = ("p20 us", "p50 us", "p80 us", "peak MB", "GB/s", "GFLOP/s", "of ceiling", "ratio")
    table = output.plain_table("case", "dtype", "shape", "backend", *numbers, right=numbers)
    for row in rows:
        table.add_row(
            row.case, row.dtype, row.shape, row.backend, f"{row.p20_us:.0f}", f"{row.p50_us:.0f}", f"{row.p80_us:.0f}",
            "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.1f}",
            "" if row.gb_s is None else f"{row.gb_s:.1f}",
            "" if row.gflop_s is None else f"{row.gflop_s:.1f}",
            "" if row.fraction is None else f"{row.fraction:.0%} {row.ceiling}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
        )  # fmt: skip
    output.print_table(table)
    output.out.print(
        f"\n{header['cpu']}, {header['threads']} threads, {header['isa']}; memory {header['bandwidth_gb_s']} GB/s, "
        f"products {header['gemm_gflop_s']} GFLOP/s, measured in this run",
        markup=False,
    )


def _print_changes(changes: Sequence[Change], name: str) -> None:
    if not changes:
        output.out.print(f"\nnone of these rows is in {name}", markup=False)
        return
    output.out.print(f"\nagainst {name}", markup=False)
    numbers = ("before us", "after us", "speedup")
    table = output.plain_table("case", "dtype", "backend", *numbers, "verdict", right=numbers)
    for c in changes:
        table.add_row(
            c.case, c.dtype, c.backend, f"{c.before_us:.0f}", f"{c.after_us:.0f}", f"{c.speedup:.2f}", c.verdict
        )
    output.print_table(table)
