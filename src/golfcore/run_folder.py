"""Names of the files in the folder of a run."""

from __future__ import annotations

CONFIG = "config.toml"  # every key of the recipe, as the run resolved it
LOG, METRICS, LEDGER, ENV = "log.txt", "metrics.jsonl", "ledger.json", "env.json"
CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.pt", "checkpoint.previous.pt"
QUANTIZED, QUANTIZATION_ERRORS = "quantised.pt", "quantised.json"
ARTIFACT = "model.golf"
SCORE = "score.json"
REPORT = "report.html"
STOPPED = "stopped.json"  # a sweep stopped the run early
