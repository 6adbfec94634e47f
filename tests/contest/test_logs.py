"""Log lines of both dialects, hand-written, and lines meant to hurt."""

from typing import Any

import pytest

from golfcore.contest.logs import MAX_LINE, final_score, parse_log
from golfcore.training import runlog

LINES: list[tuple[str, dict[str, Any]]] = [
    (
        "step:200/20000 train_loss:2.3456 train_time:8712ms step_avg:43.56ms",
        {"kind": "train", "step": 200, "total": 20000, "train_loss": 2.3456, "train_ms": 8712.0, "step_ms": 43.56},
    ),
    (
        "step:1000/20000 val_loss:2.2071 val_bpb:1.3072 train_time:43560ms step_avg:43.56ms",
        {"kind": "val", "step": 1000, "total": 20000, "val_loss": 2.2071, "val_bpb": 1.3072, "train_ms": 43560.0,
         "step_ms": 43.56},
    ),
    (
        "4500/20000 train_loss: 2.2771 train_time: 9.0m tok/s: 6589668",
        {"kind": "train", "step": 4500, "total": 20000, "train_loss": 2.2771, "train_ms": 540_000.0,
         "tokens_per_s": 6589668.0},
    ),
    (
        "0/20000 val_loss: 9.0076 val_bpb: 4.1159",
        {"kind": "val", "step": 0, "total": 20000, "val_loss": 9.0076, "val_bpb": 4.1159},
    ),
    (
        "step:500/50000 [BRIDGE 3%] train_loss:nan train_time:434157ms",
        {"kind": "train", "step": 500, "total": 50000, "train_loss": None, "train_ms": 434157.0},
    ),
    (
        "stopping_early: wallclock_cap train_time:599981ms step:13780/20000",
        {"kind": "stop", "reason": "wallclock_cap", "train_ms": 599981.0, "step": 13780, "total": 20000},
    ),
    (
        "stopping_early: wallclock_cap train_time: 599623ms step: 4900/20000",
        {"kind": "stop", "reason": "wallclock_cap", "train_ms": 599623.0, "step": 4900, "total": 20000},
    ),
    (
        "peak memory allocated: 10184 MiB reserved: 10200 MiB",
        {"kind": "memory", "allocated_mib": 10184, "reserved_mib": 10200},
    ),
    ("Code size: 47642 bytes", {"kind": "size", "what": "code", "bytes": 47642}),
    (
        "Code size (compressed): 31250 bytes",
        {"kind": "size", "what": "code", "codec": "compressed", "bytes": 31250},
    ),
    (
        "Serialized model int8+zlib: 15080959 bytes (payload:17310496 raw_torch:17356817 payload_ratio:3.96x)",
        {"kind": "size", "what": "model", "codec": "int8+zlib", "bytes": 15080959},
    ),
    (
        "Total submission size int8+zlib: 15863489 bytes",
        {"kind": "size", "what": "total", "codec": "int8+zlib", "bytes": 15863489},
    ),
    (
        "final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570",
        {"kind": "final", "name": "final_int8_zlib_roundtrip_exact", "val_loss": 2.07269931, "val_bpb": 1.2243657},
    ),
    (
        "final_sliding_window_eval stride:64 val_loss:1.9511 val_bpb:1.1556 eval_time:75096ms",
        {"kind": "final", "name": "final_sliding_window_eval", "val_loss": 1.9511, "val_bpb": 1.1556,
         "eval_ms": 75096.0},
    ),
    (
        "ttt_sliding:done val_loss=2.795171 val_bpb=1.082098 elapsed=293.2s",
        {"kind": "final", "name": "ttt_sliding:done", "val_loss": 2.795171, "val_bpb": 1.082098, "eval_ms": 293_200.0},
    ),
    (
        "DIAGNOSTIC post_ema val_loss:1.8937 val_bpb:1.1216 eval_time:2390ms",
        {"kind": "diagnostic", "name": "DIAGNOSTIC post_ema", "val_loss": 1.8937, "val_bpb": 1.1216,
         "eval_ms": 2390.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line[:40] for line, _ in LINES])
def test_each_line_is_read(line: str, expected: dict[str, Any]) -> None:
    assert parse_log(f"noise\n{line}\r\nnoise") == [expected | {"line": 2}]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./data/x.model",
        "val_loss_every: 4000",
        "step:/20000 train_loss:2.3",
        "step:200/20000",
        "ratio 3/4 of the val_loss",
        "train_loss:2.3",
        '"post_ttt_val_bpb": 1.06400238,',
        "final_x val_loss:2.0 val_bpb:nan",
        "Total submission size int8+zlib: many bytes",
    ],
)
def test_other_lines_say_nothing(line: str) -> None:
    assert parse_log(line) == []


def test_our_own_lines_are_read_back() -> None:
    text = "\n".join(
        [
            runlog.train_line(200, 20000, 2.34561, 8712.4),
            runlog.val_line(1000, 20000, 2.20712, 1.30718, 43560.0),
            runlog.stopping_early(13780, 20000, 599981.2),
            runlog.peak_memory(10184 * 2**20, 10200 * 2**20 + 5),
            *runlog.size_lines(47642, 15863489, "int8+zlib"),
            runlog.final_line(2.072699312, 1.224365701, "int8_zlib"),
            "resumed step:1200",
        ]
    )
    kinds = [event["kind"] for event in parse_log(text)]
    assert kinds == ["train", "val", "stop", "memory", "size", "size", "final", "resume"]
    assert parse_log(text)[-1]["step"] == 1200


def test_the_claimed_score_is_the_last_and_the_exact_one() -> None:
    text = "\n".join(
        [
            "diagnostic quantized val_loss:2.1 val_bpb:1.10",
            "final_int6_roundtrip val_loss:2.0077 val_bpb:1.1891 eval_time:1553ms",
            "final_int6_roundtrip_exact val_loss:2.00771951 val_bpb:1.18908459",
            "final_int6_sliding_window_exact val_loss:1.86478866 val_bpb:1.10443581",
            "final_int6_sliding_window val_loss:1.8648 val_bpb:1.1044 stride:64 eval_time:88816ms",
        ]
    )
    score = final_score(parse_log(text))
    assert score is not None
    assert (score["name"], score["val_bpb"]) == ("final_int6_sliding_window_exact", 1.10443581)
    assert final_score(parse_log("diagnostic quantized val_loss:2.1 val_bpb:1.10")) is None


def test_only_the_head_of_a_long_line_is_looked_at() -> None:
    inside = "final_x val_loss:2.0 val_bpb:1.2"
    assert len(parse_log(inside + " " * 5_000_000)) == 1
    assert parse_log(inside + "9" * 5_000_000) == []  # no number is that long
    assert parse_log("x" * MAX_LINE + " val_bpb:1.2") == []


def test_huge_numbers_do_not_overflow() -> None:
    assert parse_log("step:1/2 train_loss:1e999 train_time:1e999ms") == [
        {"kind": "train", "step": 1, "total": 2, "train_loss": None, "line": 1}
    ]
    assert parse_log("peak memory allocated: 1e999 MiB") == [{"kind": "memory", "line": 1}]
