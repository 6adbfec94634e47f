"""Make the data of the time model: a row of ``golfcore/plan/contest_steps.csv`` for each log of a contest entry.

    python bench/contest_steps.py RECORDS    # RECORDS holds <track>/<entry>/ as in openai/parameter-golf

Batch, length, ranks, milliseconds per step and peak memory are read from the logs. Logs seldom have the model's shape,
so it stands below, from the entries' own descriptions, and is checked against the number of parameters in the log.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from golfcore.contest.logs import parse_log
from golfcore.model.gpt.config import GPTConfig, gpt_counts
from golfcore.plan.evidence import COLUMNS, EVIDENCE

H200 = "8 x H200: other memory"


class Shape(NamedTuple):
    """The shape of an entry's model, of width 512 with 8 query and 4 key/value heads.

    ``extra`` is the number of parameters that it may have beyond that: hashed bigrams, value embeddings, gates.
    """

    layers: int
    hidden: int
    vocab: int
    attention: str = "sdpa"
    extra: int = 0
    excluded: str = ""


# By the start of the folder's name. Entries of another architecture or on other machines are kept, with the reason why
# they are no evidence for a decoder of attention and MLP blocks on H100s.
SHAPES = {
    "2026-03-17_LoRA_TTT": Shape(9, 1024, 1024),
    "2026-03-17_NaiveBaseline": Shape(9, 1024, 1024),
    "2026-03-18_FP16Embed_WD3600": Shape(9, 992, 1024),
    "2026-03-18_LongContextSeq2048": Shape(9, 1024, 1024),
    "2026-03-18_LowerLR": Shape(9, 1024, 1024, excluded=H200),
    "2026-03-19_10L_MixedPrecision": Shape(10, 1024, 1024, excluded=H200),
    "2026-03-19_MLP3x_QAT_Int6_SlidingWindow": Shape(9, 1536, 1024),
    "2026-03-19_MixedQuant_Int6Int8_SlidingWindow": Shape(9, 1536, 1024),
    "2026-03-19_Seq2048_FP16Emb_TunedLR": Shape(10, 1344, 1024),
    "2026-03-19_SlidingWindowEval": Shape(9, 1024, 1024),
    "2026-03-19_SlidingWindow_FP16Emb_10L": Shape(10, 1024, 1024),
    "2026-03-19_TrainingOptSeq4096": Shape(9, 1024, 1024),
    "2026-03-19_WarmdownQuantization": Shape(9, 1536, 1024),
    "2026-03-19_int6_STE": Shape(9, 1536, 1024, extra=600_000),
    "2026-03-19_smeargate_orthoinit_muonwd": Shape(9, 1536, 1024, extra=600_000),
    "2026-03-20_10L_Int5MLP": Shape(10, 1536, 1024, extra=1_400_000),
    "2026-03-20_11L_EfficientPartialXSA_FA3": Shape(11, 1536, 1024, "fa3", extra=400_000),
    "2026-03-20_Int6_MLP3x": Shape(9, 1536, 1024, extra=600_000),
    "2026-03-21_11L_XSA4": Shape(11, 1536, 1024, "fa3", extra=400_000),
    "2026-03-22_11L_EMA": Shape(11, 1536, 1024, "fa3", extra=500_000),
    "2026-03-23_LeakyReLU": Shape(11, 1536, 1024, "fa3", extra=500_000),
    "2026-03-25_ValCalib": Shape(11, 1536, 1024, "fa3", extra=600_000),
    "2026-03-31_ParallelResiduals": Shape(11, 1536, 1024, "fa3", extra=3_900_000),  # two layers' repeats have own MLPs
    "2026-04-01_Vocab4096": Shape(11, 2048, 4096, "fa3", extra=600_000),
    "2026-04-03_MuonEqR": Shape(11, 2048, 4096, "fa3", extra=600_000),
    "2026-04-04_SP4096": Shape(11, 2048, 4096, "fa3", extra=600_000),
    "2026-04-05_SP8192": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-06_SP8192": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-09_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-10_VarLenAttn": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-14_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-16_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-18_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-19_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-23_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-27_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-04-29_": Shape(11, 2048, 8192, "fa3", extra=60_000),
    "2026-03-18_Quasi10Bfrom50B": Shape(9, 1024, 1024),
    "2026-03-23_DGAttention": Shape(11, 1536, 1024, excluded="differential attention in plain torch"),
    "2026-03-26_37M_LeWM_Jepa_Mamba2": Shape(10, 0, 1024, excluded="state-space layers and a second loss"),
    "2026-03-29_HNet": Shape(9, 1024, 1024, excluded="a hierarchy of chunks, not one stack"),
    "2026-03-30_ByteJEPA": Shape(9, 1024, 260, excluded="one RTX 5090, and a second loss"),
    "2026-03-31_LegendreGPT": Shape(0, 0, 1024, excluded="weights computed from polynomials"),
    "2026-04-15_Mamba3Hybrid": Shape(7, 1536, 8192, excluded="state-space layers"),
    "2026-04-30_Random_Linear_Adapter": Shape(12, 1536, 1024, excluded="random matrices with adapters"),
}
# Logs that say nothing of these: as their entries describe the run, and as the others of their line have it.
UNSAID = {"train_batch_tokens": 786_432, "train_seq_len": 2048, "world_size": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    records = parser.parse_args().records
    rows: list[dict[str, Any]] = []
    seen: set[tuple[object, ...]] = set()
    for path in sorted(p for p in records.glob("*/**/*") if p.suffix in (".log", ".txt")):
        entry = path.relative_to(records).parts[1]
        shape = next((shape for start, shape in SHAPES.items() if entry.startswith(start)), None)
        if shape is None:
            sys.exit(f"{entry}: an entry of unknown shape; add it to SHAPES")
        row = read(path, entry, shape)
        if row is None:
            continue
        mark = (row["params"], row["steps"], row["ms_per_step"])
        if mark not in seen:  # the same run is filed under two names, and by two entries
            seen.add(mark)
            rows.append(row)
    with EVIDENCE.open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} logs of {len({row['entry'] for row in rows})} entries -> {EVIDENCE}")


def read(path: Path, entry: str, shape: Shape) -> dict[str, Any] | None:
    """Return the row of a log, or None if it does not time a training run."""
    text = path.read_text(errors="replace")
    events = parse_log(text)
    steps, train_ms = clock(events)
    if not steps:
        return None
    said = {key: number(text, key) or (0 if shape.excluded else value) for key, value in UNSAID.items()}
    params = number(text, "model_params")
    if not shape.excluded:
        config = GPTConfig(num_layers=shape.layers, mlp_mult=2)
        counted = sum(n for _, n, _ in gpt_counts(config, shape.vocab).values())
        counted += shape.layers * 2 * 512 * (shape.hidden - 1024)
        if not 0 <= params - counted <= shape.extra:
            sys.exit(f"{path}: {params} parameters logged, {counted} and at most {shape.extra} more by its shape")
    mean, most = passes(text, shape.layers, steps)
    memory = [event.get("allocated_mib") for event in events if event["kind"] == "memory"]
    return {
        "entry": entry, "log": path.name, "gpus": said["world_size"], "layers": shape.layers,
        "passes": round(mean, 3), "max_passes": most, "model_dim": 512, "kv_dim": 256,
        "mlp_hidden": shape.hidden, "vocab": shape.vocab, "seq_len": said["train_seq_len"],
        "batch_tokens": said["train_batch_tokens"], "attention": shape.attention, "params": params, "steps": steps,
        "ms_per_step": round(train_ms / steps, 3), "peak_mib": memory[-1] if memory else "",
        "excluded": shape.excluded,
    }  # fmt: skip


def clock(events: list[dict[str, Any]]) -> tuple[int, float]:
    """Return steps and milliseconds of training, from the line that ended it or the last that has both."""
    ends = [e for e in events if e["kind"] == "stop" and e.get("step") and e.get("train_ms")]
    timed = [e for e in events if e["kind"] in ("train", "val") and e["step"] and e.get("train_ms")]
    last = (ends or timed or [{"step": 0, "train_ms": 0.0}])[-1]
    return int(last["step"]), float(last["train_ms"])


def number(text: str, key: str) -> int:
    found = re.search(rf"{key}:\s?([\d,]{{1,15}})", text)
    return int(found[1].replace(",", "")) if found else 0


def passes(text: str, layers: int, steps: int) -> tuple[float, int]:
    """Return the layers run per step, mean and most: some entries repeat a span of layers from some step on."""
    switches: list[tuple[int, int]] = []  # (step, layers from there on)
    for at, encoder, decoder in re.findall(
        r"layer_loop:\S+ step:(\d+) frac:[\d.]+ encoder:\[([\d, ]*)\] decoder:\[([\d, ]*)\]", text
    ):
        switches.append((int(at), len(encoder.split(",")) + len(decoder.split(","))))
    for phase, at in re.findall(r"layer_loop:phase(\d) step:(\d+)", text):
        spans = re.search(rf"loop_warmup_phase{phase}: encoder:\[([\d, ]*)\] decoder:\[([\d, ]*)\]", text)
        switches.append((int(at), sum(len(span.split(",")) for span in spans.groups()) if spans else layers))
    repeats = re.findall(r"^recurrence:activated (?:at )?step[: ](\d+)", text, re.MULTILINE)
    switches += [(int(at), layers + 2) for at in repeats]
    total, before, current = 0.0, 0, layers
    for at, then in switches:
        total += current * (at - before)
        before, current = at, then
    return (total + current * (steps - before)) / steps, current


if __name__ == "__main__":
    main()
