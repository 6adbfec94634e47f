"""Look for invalid techniques that show in the syntax of a program: clocks, caps, byte tables, splits of documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from golfcore.contest.checks.context import Context
from golfcore.contest.checks.validation import MANY_SHARDS
from golfcore.contest.findings import Finding
from golfcore.contest.flow.engine import Trace
from golfcore.contest.flow.state import SourceFile
from golfcore.contest.folder import SCRIPT, SHELL
from golfcore.contest.ruleset import Severity
from golfcore.contest.sources import Programs

_CLOCK = re.compile(
    r"wallclock|wall_clock|time_budget|train_budget|time_limit|deadline|max_\w*(?:second|time|_ms)", re.I
)
_RESERVE = re.compile(r"reserve|margin|buffer|headroom|gptq|calib|safety|slack|budget|quant|export", re.I)
_ELAPSED = re.compile(r"elapsed|perf_counter|time\(\)|\bt0\b|start|now|spent|used|approx", re.I)
_BUDGET = re.compile(r"wallclock|train_budget|time_budget", re.I)
_VAL_DOCS = re.compile(
    r"^-{0,2}(?:num[-_]?)?(?:val|valid|validation)[-_]?(?:docs|documents|n_docs)$|^N?_?VAL_DOCS$", re.I
)
MEBI = 16 * 2**20
SPACE = "\u2581"


def check_patterns(context: Context, programs: Programs, traces: list[Trace]) -> None:
    """Check the syntax of every program."""
    for source in programs.files.values():
        _documents(context, source)
        _bytes(context, source, programs)
    main = programs.files.get(SCRIPT)
    if main is not None:
        _calibration(context, main, traces, programs)
        _clock(context, main, traces)
        _cap(context, main)


def _flag(
    context: Context,
    rule: str,
    severity: Severity,
    text: str,
    fix: str,
    source: SourceFile,
    node: ast.AST,
    confidence: float = 0.8,
) -> None:
    line = getattr(node, "lineno", 0)
    shown = tuple(part.strip() for part in source.text.split("\n")[line - 1 : line]) if line else ()
    context.notes.add(Finding(rule, severity, text, fix, "static", confidence, source.name, line, shown))


# --- clock ------------------------------------------------------------------------------------------------------------


def _calibration(context: Context, source: SourceFile, traces: list[Trace], programs: Programs) -> None:
    """Look for calibration on training data after the loop that the clock ends, without a reserve."""
    run = next((trace for trace in traces if SCRIPT in trace.started), None)
    if run is None:
        return
    steps = [e.order for e in run.events if e.kind == "step" and "TRAIN" in e.labels]
    after = [e for e in run.events if e.kind == "hessian" and steps and e.order > max(steps)]
    if not after or _reserved(programs) or not any(_CLOCK.search(name) for name in _names(source.tree)):
        return
    limits = context.rules.limits
    fits = [
        log
        for log in context.logs
        if log.train_s is not None
        and log.train_s + (log.calibration_s or 1.0) <= limits.train_s + limits.calibration_tolerance_s
    ]
    if fits or (context.logs and any(log.self_calibrated for log in context.logs)):
        return
    file, line = after[0].site
    where = programs.files.get(file, source)
    _flag(
        context,
        "I9",
        context.strict("LIKELY"),
        "Activations of training data are summed after the loop that the clock ends, and nothing is reserved for it.",
        "Reserve the time of the calibration within the clock, or calibrate on text that the model generates.",
        where,
        ast.Pass(lineno=line, col_offset=0),
    )


def _reserved(programs: Programs) -> bool:
    """Return whether a program takes something off its clock, or checks the clock again."""
    for source in programs.files.values():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Sub, ast.Mult)):
                if _CLOCK.search(ast.unparse(node.target)) and not _ELAPSED.search(ast.unparse(node.value)):
                    return True
            elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Mult)):
                left, right = ast.unparse(node.left)[:300], ast.unparse(node.right)[:300]
                small = isinstance(node.op, ast.Mult) and any(
                    isinstance(side, ast.Constant) and isinstance(side.value, float) and 0.5 < side.value < 1
                    for side in (node.left, node.right)
                )
                taken = isinstance(node.op, ast.Sub) and _CLOCK.search(left) and not _ELAPSED.search(right)
                if (taken and (_RESERVE.search(right) or isinstance(node.right, ast.Constant))) or (
                    small and (_CLOCK.search(left) or _CLOCK.search(right))
                ):
                    return True
    return False


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _clock(context: Context, source: SourceFile, traces: list[Trace]) -> None:
    """Look for a clock that is set higher than the limit, if no log tells how long training took."""
    limits = context.rules.limits
    if any(log.train_s is not None for log in context.logs):
        return
    most = limits.train_s + limits.train_tolerance_s
    classes = [thing for trace in traces for thing in trace.engine.things if thing.kind == "class"]
    for name, value in ((n, v) for thing in classes for n, v in thing.attributes.items()):
        seconds = value.const
        if not isinstance(seconds, (int, float)) or not most < seconds < 100_000 or not _BUDGET.search(name):
            continue
        node = next((n for n in ast.walk(source.tree) if isinstance(n, ast.Name) and n.id == name), source.tree)
        text = f"{name} is {seconds:g}; training may take {limits.train_s:g} s."
        _flag(context, "I16", context.strict("LIKELY"), text, "Lower it.", source, node)
        return


def _cap(context: Context, source: SourceFile) -> None:
    """Look for a cap in binary megabytes, if no log tells how large the entry is."""
    logged = [log.bytes_total for log in context.logs if log.bytes_total is not None]
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Compare):
            continue
        if any(_constant(side) == MEBI for side in (node.left, *node.comparators)):
            safe = bool(logged) and max(logged) <= context.rules.limits.cap_bytes
            _flag(
                context,
                "I16",
                "INFO" if safe else context.strict("LIKELY"),
                f"The size is compared with {MEBI:,} bytes; the cap is {context.rules.limits.cap_bytes:,}.",
                f"Compare with {context.rules.limits.cap_bytes:,}.",
                source,
                node,
            )


def _constant(node: ast.AST) -> int | None:
    """Return a product, power or shift of whole numbers."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int) else None
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left), _constant(node.right)
        if left is None or right is None or abs(left) > 1 << 40 or abs(right) > 1 << 40:
            return None
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Pow) and 0 <= right < 40 and abs(left) <= 1024:
            return int(left**right)
        if isinstance(node.op, ast.LShift) and 0 <= right < 40:
            return left << right
    return None


# --- documents --------------------------------------------------------------------------------------------------------


def _documents(context: Context, source: SourceFile) -> None:
    """Look for a preparation of data whose validation documents are also written to training."""
    wanted = context.rules.data.val_documents
    constants = {
        node.targets[0].id: node.value.value
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.FunctionDef, ast.Module)):
            _slices(context, source, node.body, constants)
        if isinstance(node, ast.For):
            _both(context, source, node)
        name, default = _default(node)
        if wanted and _VAL_DOCS.match(name) and isinstance(default, int) and 0 < default < wanted:
            shards = [log.train_shards for log in context.logs if log.train_shards]
            started = _run_without(context, source.name, name) and (not shards or max(shards) >= MANY_SHARDS)
            _flag(
                context,
                "I13",
                "LIKELY" if started else "REVIEW",
                f"{name} is {default:,} by default; the validation split has {wanted:,} documents, so "
                f"{wanted - default:,} of them go to training"
                + (", and the shown command does not change it." if started else "."),
                f"Leave the first {wanted:,} documents out of training.",
                source,
                node,
            )


def _default(node: ast.AST) -> tuple[str, object]:
    """Return name and default of an option, or of a constant in capitals."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and node.args
    ):
        name = node.args[0]
        default = next((k.value for k in node.keywords if k.arg == "default"), None)
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and default is not None:
            return name.value, _constant(default)
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
        return node.targets[0].id, _constant(node.value)
    return "", None


def _run_without(context: Context, script: str, option: str) -> bool:
    """Return whether a script or README runs a program without setting an option."""
    short = script.rpartition("/")[2]
    for file in context.entry.with_suffix((*SHELL, ".md")):
        for line in (file.text or "").replace("\\\n", " ").split("\n"):
            if short in line and "python" in line:
                return option.strip("-") not in line.replace("_", "-") and option not in line
    return False


def _slices(context: Context, source: SourceFile, body: list[ast.stmt], constants: Mapping[str, object]) -> None:
    """Look for two slices of the same documents that overlap: ``docs[:n]`` for validation and ``docs`` for training."""
    starts: dict[str, tuple[int, ast.stmt]] = {}
    ends: dict[str, tuple[object, ast.stmt]] = {}
    for node in body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name, value = node.targets[0].id.lower(), node.value
        is_train, is_val = (
            "train" in name and "val" not in name,
            name.startswith(("val", "valid")) and "train" not in name,
        )
        base = value.value if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) else value
        if not isinstance(base, ast.Name) or not re.search(r"doc|text|row|line|stor|sample|record", base.id, re.I):
            continue
        part = value.slice if isinstance(value, ast.Subscript) else None
        lower = part.lower if isinstance(part, ast.Slice) else None
        upper = part.upper if isinstance(part, ast.Slice) else None
        if is_val and upper is not None and lower is None:
            ends[base.id] = (_known(upper, constants), node)
        elif is_train:
            start = _known(lower, constants) if lower is not None else 0
            if isinstance(start, int):
                starts[base.id] = (start, node)
    for base_name, (start, node) in starts.items():
        end = ends.get(base_name, (None, node))[0]
        if base_name in ends and (start == 0 or (isinstance(end, int) and start < end)):
            _flag(
                context,
                "I13",
                "LIKELY",
                f"Training documents begin at {start:,} of the list whose first ones are validation.",
                "Begin training where validation ends.",
                source,
                node,
            )


def _known(node: ast.AST, constants: Mapping[str, object]) -> object:
    return constants.get(node.id) if isinstance(node, ast.Name) else _constant(node)


def _both(context: Context, source: SourceFile, node: ast.For) -> None:
    """Look for a loop that writes the first documents to validation and goes on to write them to training."""
    for index, part in enumerate(node.body):
        if not (
            isinstance(part, ast.If)
            and isinstance(part.test, ast.Compare)
            and isinstance(part.test.ops[0], (ast.Lt, ast.LtE))
        ):
            continue
        leaves = any(isinstance(inner, (ast.Continue, ast.Return, ast.Break)) for inner in ast.walk(part))
        inside = " ".join(ast.unparse(inner) for inner in part.body)
        after = " ".join(ast.unparse(later) for later in node.body[index + 1 :])
        writes = r"\b\w*{}\w*\.(?:append|write|extend|add|push|writerow)\("
        if (
            leaves
            or part.orelse
            or not re.search(writes.format("val"), inside)
            or not re.search(writes.format("train"), after)
        ):
            continue
        _flag(
            context,
            "I13",
            "LIKELY",
            "Documents that are written to validation are written to training too.",
            "Skip a document after it was written to validation.",
            source,
            part,
        )


# --- bytes ------------------------------------------------------------------------------------------------------------


def _bytes(context: Context, source: SourceFile, programs: Programs) -> None:
    """Look for a table of bytes per token that counts the leading space, where another place adds it again."""
    if SPACE not in source.text and "\\u2581" not in source.text:
        return
    adds = any(_adds_space(s.tree) for s in programs.files.values())
    for node in ast.walk(source.tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        text = ast.unparse(node)
        if (SPACE not in text and "\\u2581" not in text) or "encode" not in text:
            continue
        counted = _counts_space(node)
        if counted is not None and adds:
            _flag(
                context,
                "I14",
                "LIKELY",
                "The table of bytes counts the leading space of a piece, and the sum adds it again.",
                "Count a piece without its mark, and add the space once.",
                source,
                counted,
            )
        if (
            not re.search(r"is_?byte|<0x|byte_fallback", text, re.IGNORECASE)
            and re.search(r"len\(.*encode", text)
            and re.search(r"id_to_piece|IdToPiece|\.decode\(", text)
        ):
            _flag(
                context,
                "I14",
                "LIKELY",
                "The table of bytes does not tell byte pieces from others: <0xE2> is one byte.",
                "Count a byte piece as 1.",
                source,
                node,
                0.7,
            )


def _adds_space(tree: ast.AST) -> bool:
    """Return whether a sum of bytes adds a space where the token before is no boundary."""
    for node in ast.walk(tree):
        added = node.value if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add) else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            added = node.right
        if added is not None and re.search(r"(?:leading|has)_?space|space_lut|lead_lut", ast.unparse(added)):
            return True
    return False


def _counts_space(function: ast.AST) -> ast.AST | None:
    """Return the expression of a piece's length that has the space in it: ``len(piece[1:].encode()) + 1``."""
    for node in ast.walk(function):
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Add)
            and isinstance(node.right, ast.Constant)
            and node.right.value == 1
            and re.search(r"len\(.*encode", ast.unparse(node.left))
        ):
            return node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
            text = ast.unparse(node.args[0])
            if "encode" in text and re.search(r"replace\(['\"](?:▁|\\u2581)['\"], ['\"] ['\"]\)", text):
                return node
    return None
