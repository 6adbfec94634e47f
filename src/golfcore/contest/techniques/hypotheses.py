"""Turn what the analyses of programs suspect into findings with lines."""

from __future__ import annotations

from golfcore.contest.checks.context import Context
from golfcore.contest.findings import Finding
from golfcore.contest.flow.engine import Trace, trace
from golfcore.contest.folder import SCRIPT, SHELL
from golfcore.contest.ruleset import Severity
from golfcore.contest.sources import Programs
from golfcore.contest.techniques.judge import Hypothesis, judge

NAMES = {  # how sure a technique of a program that is not run by train_gpt.py may be
    "apart": "the file is not run by train_gpt.py, a script or the README",
    "off": "a switch turns it on, which is off by default and which no log or script sets",
}


def check_programs(context: Context, programs: Programs) -> list[Trace]:
    """Follow the data of every program of an entry, and report what it suspects; return the abstract runs."""
    done: set[str] = set()
    traces = []
    named = _started(context, programs)
    order = sorted(programs.files, key=lambda name: (name != SCRIPT, name not in named, name))
    for name in order:
        if name in done:
            continue
        main = name in named
        try:
            run, certain = _followed(programs, name, loose=False)
            off = _followed(programs, name, loose=True)[1] if run.engine.switched_off else []
        except Exception as error:  # whatever an entry can do to the analysis is a note, and no end of the check
            context.notes.skip(f"{name}: its data flow could not be followed ({type(error).__name__})")
            continue
        done.update(run.started)
        traces.append(run)
        _report(context, programs, certain, "" if main else "apart")
        if not run.complete:
            context.notes.skip(f"{name}: data flow was followed only as far as the budget went")
        rules = {item.rule for item in certain}
        _report(context, programs, [item for item in off if item.rule not in rules], "off")
    if not programs.files:
        context.notes.skip("data flow: there is no Python that can be parsed")
    return traces


def _followed(programs: Programs, name: str, *, loose: bool) -> tuple[Trace, list[Hypothesis]]:
    run = trace(programs.files, name, programs.settings, loose=loose)
    return run, judge(run)


def _started(context: Context, programs: Programs) -> set[str]:
    """Return the files that are run: train_gpt.py, and those that scripts, the README or programs start by name."""
    texts = [file.text or "" for file in context.entry.with_suffix((*SHELL, ".md"))]
    texts += [source.text for name, source in programs.files.items() if name == SCRIPT]
    if SCRIPT not in programs.files:
        return set(programs.files)
    found = {SCRIPT}
    for name in programs.files:
        short = name.rpartition("/")[2]
        if any(
            f"python {short}" in text
            or f"python3 {short}" in text
            or f'"{short}"' in text
            or f"-m {short[:-3]}" in text
            or f"python {name}" in text
            or (f" {short}" in text and "torchrun" in text and text.count("torchrun") and _torchrun(text, short))
            for text in texts
        ):
            found.add(name)
    return found


def _torchrun(text: str, name: str) -> bool:
    return any("torchrun" in line and name in line for line in text.replace("\\\n", " ").split("\n"))


def _report(context: Context, programs: Programs, hypotheses: list[Hypothesis], doubt: str) -> None:
    for item in hypotheses:
        file, line = item.sites[0] if item.sites else ("", 0)
        source = programs.files.get(file)
        every = source.text.split("\n") if source is not None else []
        lines = tuple(every[n - 1].strip() for f, n in item.sites if f == file and 0 < n <= len(every))
        places = ", ".join(f"{f}:{n}" if f != file else f"line {n}" for f, n in item.sites[1:4])
        severity: Severity = "REVIEW" if item.review or doubt else "LIKELY"
        text = item.reason + (f" See also {places}." if places else "") + (f" But {NAMES[doubt]}." if doubt else "")
        context.notes.add(
            Finding(
                item.rule,
                severity,
                text,
                item.fix,
                "static",
                item.confidence * (0.5 if doubt else 1.0),
                file,
                line,
                lines,
            )
        )
