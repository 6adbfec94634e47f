"""Check the data of an entry: validation tokens, training shards, bytes per token, counters of gates."""

from __future__ import annotations

import math
import re

from golfcore.contest.checks.context import Context
from golfcore.contest.log_facts import GATES, LogFacts

NEAR = 0.012  # share that a ratio may differ from a known one: four digits, and the tail of a batch
SPACE_TWICE = (1.155, 1.185)  # a space counted twice makes the denominator this much larger
BYTES_AS_THREE = (1.037, 1.046)  # a byte token counted as the three bytes of U+FFFD
WHOLE = 0.95
MANY_SHARDS = 1_000
MORE = 1.04


def check_validation(context: Context) -> None:
    """Check what the logs and claims tell about the data."""
    for log in context.logs:
        _tokens(context, log)
        _shards(context, log)
        _gates(context, log)
    if context.logs and all(log.val_tokens is None for log in context.logs):
        context.notes.skip("number of validation tokens: no log prints val_tokens")
    _denominator(context)
    _normalized(context)


def _normalized(context: Context) -> None:
    """Ask about a lossy normalization that the entry names, on which there is no ruling."""
    for file in context.entry.files.values():
        if file.suffix in (".md", ".py", ".json") and file.text:
            match = re.search(r"case.?fold(?:ing|ed)?\b", file.text[:2_000_000], re.IGNORECASE)
            if match:
                text = "The entry names a normalization that loses information; it never got a ruling."
                line = file.text.count("\n", 0, match.start()) + 1
                context.flag(
                    "R11", "REVIEW", text, "Say what is lost.", file=file.name, line=line, kind="meta", confidence=0.5
                )
                return


def _tokens(context: Context, log: LogFacts) -> None:
    vocabulary, caseops = context.vocabulary()
    known = [t for t in context.rules.tokenizers if t.val_tokens and (vocabulary in (None, t.vocab_size))]
    if caseops and vocabulary == 8192:
        known = [tokenizer for tokenizer in known if "caseops" in tokenizer.name]
    line = log.setting_lines.get("val_tokens", 0)
    if log.val_tokens and known and log.val_tokens < WHOLE * min(t.val_tokens for t in known):
        whole = min(t.val_tokens for t in known)
        context.flag(
            "I15",
            "LIKELY" if vocabulary is not None and log in context.supporting else "REVIEW",
            f"{log.val_tokens:,} validation tokens were scored; the split has {whole:,} with this tokenizer.",
            "Score all validation shards.",
            file=log.name,
            line=line,
        )
    for key, text in log.settings.items():
        if key in ("val_doc_fraction", "val_fraction", "eval_fraction") and (share := _float(text)) is not None:
            if 0 < share < 1:
                context.flag(
                    "I15",
                    "LIKELY",
                    f"{key} is {share:g}: a part of the validation split was scored.",
                    "Score all of it.",
                    file=log.name,
                    line=log.setting_lines.get(key, 0),
                )
        elif key in ("subset", "max_val_tokens", "val_tokens_limit", "eval_tokens") and (part := _float(text) or 0) > 0:
            less = bool(known) and part < WHOLE * min(tokenizer.val_tokens for tokenizer in known)
            context.flag(
                "I15",
                "LIKELY" if less and key != "eval_tokens" and log in context.supporting else "REVIEW",
                f"{key}={text}: only a part of the validation split may have been scored.",
                "Score all of it.",
                file=log.name,
                line=log.setting_lines.get(key, 0),
            )


def _shards(context: Context, log: LogFacts) -> None:
    """Check which shards training read, and signs of data that was prepared with another split."""
    path = log.settings.get("train_files") or log.settings.get("train_pattern") or ""
    line = log.setting_lines.get("train_files", 0)
    if "val" in path.rsplit("/", 1)[-1].lower() and "train" not in path.rsplit("/", 1)[-1].lower():
        context.flag(
            "I12",
            "LIKELY",
            f"Training read the validation shards: train_files is {path}.",
            "Train on the training shards.",
            file=log.name,
            line=line,
        )
    signs = []
    if log.train_shards is not None and log.train_shards >= MANY_SHARDS:
        signs.append(f"{log.train_shards:,} training shards (the contest has {context.rules.data.train_shards})")
    if "datasets/datasets" in path:
        signs.append("a doubled datasets/datasets path")
    documents = _float(log.settings.get("val_docs", "") or log.settings.get("num_val_docs", ""))
    if documents and context.rules.data.val_documents and documents < context.rules.data.val_documents:
        signs.append(f"val_docs={documents:g} (the split has {context.rules.data.val_documents:,})")
    if signs:
        context.flag(
            "I13",
            "LIKELY" if len(signs) > 1 and any("shards" in s or "val_docs" in s for s in signs) else "REVIEW",
            f"Signs of data prepared with another split: {'; '.join(signs)}. Validation documents may be in training.",
            "Prepare the data with 50,000 validation documents left out of training, and show their hashes.",
            file=log.name,
            line=log.setting_lines.get("train_shards", line),
            confidence=0.6 + 0.1 * len(signs),
        )


def _gates(context: Context, log: LogFacts) -> None:
    for name in GATES:
        count, line = log.gates.get(name, (0.0, 0))
        if count > 0:
            context.flag(
                "I6",
                "LIKELY" if "agree" not in name else "REVIEW",
                f"The counter {name} is {count:g}: hints were switched by a class of the token that they predict.",
                "Let gates look only at tokens before the one that is predicted.",
                file=log.name,
                line=line,
            )


def _denominator(context: Context) -> None:
    """Check bytes per token, which follows from loss and score and depends on tokenizer and split alone."""
    pairs: list[tuple[float, float, str, int]] = []
    loss, bpb = context.submission.number("val_loss"), context.submission.number("val_bpb")
    if loss and bpb and loss > 1.02 * bpb * math.log(2):
        pairs.append((loss, bpb, context.submission_file.name if context.submission_file else "", 0))
    logs = [log for log in context.supporting if log.val_loss and log.val_bpb]
    pairs += [(log.val_loss or 0.0, log.val_bpb or 0.0, log.name, log.score_line) for log in logs]
    if not pairs or not context.rules.tokenizers:
        context.notes.skip("bytes per token: needs val_loss and val_bpb of one score, and the contest's tokenizers")
        return
    vocabulary, caseops = context.vocabulary()
    known = [t for t in context.rules.tokenizers if vocabulary == t.vocab_size]
    if vocabulary == 8192:
        known = [t for t in known if ("caseops" in t.name) is caseops]
    clusters = [t.bytes_per_token for t in known] or [t.bytes_per_token for t in context.rules.tokenizers]
    for loss, bpb, file, line in pairs:
        ratio = loss / (math.log(2) * bpb)
        if any(abs(ratio / cluster - 1) < NEAR for cluster in clusters):
            continue
        factors = [ratio / cluster for cluster in clusters]
        twice = any(SPACE_TWICE[0] <= f <= SPACE_TWICE[1] for f in factors)
        three = any(BYTES_AS_THREE[0] <= f <= BYTES_AS_THREE[1] for f in factors)
        cause = "a space counted twice" if twice else "a byte token counted as three bytes" if three else ""
        # More bytes than the tokenizer has, with the contest's own tokenizer and text.
        more = vocabulary is not None and min(factors) > MORE and not _own_text(context)
        context.flag(
            "I14",
            "LIKELY" if cause or more else "REVIEW",
            f"Loss and score imply {ratio:.3f} bytes per token; known tokenizers have "
            f"{', '.join(f'{cluster:g}' for cluster in clusters)}."
            + (f" The factor is that of {cause}." if cause else ""),
            "Count the UTF-8 bytes of the original text, and show the count.",
            file=file,
            line=line,
            confidence=0.85,
        )


def _own_text(context: Context) -> bool:
    """Return whether an entry brings a tokenizer or a normalization of its own, on which no ruling is known."""
    files = context.entry.files.values()
    ships = any(file.suffix in (".model", ".vocab", ".bpe") or "tokenizer" in file.name for file in files)
    readme = context.entry.named("README.md")
    words = (readme.text or "")[:100_000] if readme is not None else ""
    words += f" {context.entry.folder.name} {context.submission.raw.get('tokenizer', '')}"
    return ships or re.search(r"case.?fold|lower.?cas|custom tokenizer|own tokenizer", words, re.IGNORECASE) is not None


def _float(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
