"""Helpers in C, C++, CUDA and shell: true tokens followed through names and assignments."""

from __future__ import annotations

from pathlib import Path

import pytest
from entries import severe, write_entry

from golfcore.contest.check import check_entry
from golfcore.contest.techniques.native import suspects

HASHED = """#include <cmath>
extern "C" void mix(const int* tokens, const float* nll, double* out, int n) {
    for (int t = 2; t < n; ++t) {
        uint64_t h = tokens[t - 1] * 36313ull ^ tokens[t - 2] * 27191ull;
        int tgt = tokens[t];
        uint64_t key = (h ^ (uint64_t)tgt * 92821ull) & MASK;
        double c = ctx[h & MASK];
        double f = full[key];
        double p = exp(-nll[t]);
        double q = f / (c + 1.0);
        out[t] = -log(0.8 * p + 0.2 * q);
        ctx[h & MASK]++; full[key]++;
    }
}
"""
HINTS = """#include <cstdint>
extern "C" void hints(const int* tokens, int* out, int n) {
    for (int t = 2; t < n; ++t) {
        uint64_t h = (tokens[t - 1] * 36313ull ^ tokens[t - 2] * 27191ull) & MASK;
        out[t] = count[h] > 2 ? best[h] : -1;
        int tok = tokens[t];
        if (best[h] == tok) count[h]++;
        else if (--count[h] <= 0) { best[h] = tok; count[h] = 1; }
    }
}
"""
BYTES = """void ppm(const int* ids, const uint8_t* tok_bytes, const int* off, const float* nll, double* out, int n) {
    for (int t = 0; t < n; ++t) {
        int target = ids[t];
        double lp = 0;
        for (int j = off[target]; j < off[target + 1]; ++j) {
            uint8_t b = tok_bytes[off[target] + j];
            uint32_t c = table[ctx * 256 + b];
            lp += log((c + 1.0) / (total[ctx] + 256.0));
            table[ctx * 256 + b]++;
        }
        out[t] = logaddexp(log(0.7) - nll[t], log(0.3) + lp);
    }
}
"""
GATED = """__global__ void gate(const int* targets, const bool* is_word_start, const float* hint, float* nll, int n) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= n) return;
    int tgt = targets[t];
    if (!is_word_start[tgt]) nll[t] -= hint[t];
}
"""
GATED_BEFORE = GATED.replace("int tgt = targets[t];", "int prev = inputs[t];").replace(
    "is_word_start[tgt]", "is_word_start[prev]"
)
COUNTED = """void count(const int* targets, const int* byte_len, long* out, int n) {
    for (int t = 0; t < n; ++t) { int tgt = targets[t]; out[0] += byte_len[tgt]; }
}
"""


@pytest.mark.parametrize(("rule", "text"), [("I5", HASHED), ("I7", BYTES), ("I6", GATED)])
def test_what_breaks_a_rule(rule: str, text: str, tmp_path: Path) -> None:
    assert {found for found, _, _ in suspects(text)} == {rule}
    suffix = ".cu" if "__global__" in text else ".cpp"
    report = check_entry(write_entry(tmp_path / "file", {f"helper{suffix}": text}))
    assert severe(report) == {(rule, "LIKELY")}
    finding = next(f for f in report.findings if f.rule == rule)
    assert finding.file == f"helper{suffix}" and finding.lines and finding.line > 1
    inline = {"train_gpt.py": f"import ctypes\nSOURCE = r'''\n{text}'''\n"}
    found = check_entry(write_entry(tmp_path / "string", inline))
    assert severe(found) == {(rule, "LIKELY")}


@pytest.mark.parametrize(
    "text", [HINTS, GATED_BEFORE, COUNTED, "", "int main() { return 0; }", "x" * 2_000_000, "if(" * 50_000]
)
def test_what_is_honest(text: str) -> None:
    assert suspects(text) == []


def test_comments_do_not_count() -> None:
    assert suspects(f"/* {HASHED} */\n" + "\n".join(f"// {line}" for line in GATED.splitlines())) == []
