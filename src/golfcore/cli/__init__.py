"""The command line. Commands are loaded when they are called: ``golfcore --help`` imports neither torch nor numpy."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import cyclopts

from golfcore.cli.options import PLAIN, usage_line
from golfcore.crash import say
from golfcore.endings import run_to_end
from golfcore.startup import prepare


def _version() -> str:
    from golfcore.machine import version_text

    return version_text()


app = cyclopts.App(
    name="golfcore",
    help="Train the best language model that fits a byte cap, and prove its score. Any command takes --debug.",
    version=_version,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    default_parameter=PLAIN,
)
for _name, _target, _help in (
    ("run", "run:run", "Train, quantize, pack and score a model from text."),
    ("train", "stages:train", "Train a recipe."),
    ("quantize", "stages:quantize", "Quantize a trained run."),
    ("pack", "stages:pack", "Pack a quantized run, an unpacked folder or .safetensors into a .golf file."),
    ("eval", "stages:evaluate", "Score a packed model in bits per byte."),
    ("probe", "probe:probe", "Probe a packed model, or a stranger's scorer, for the ways to cheat."),
    ("sample", "sample:sample", "Generate text with a packed model."),
    ("plan", "plan:plan", "Predict bytes, time, memory, dollars and scaling of a run."),
    ("sweep", "sweep:sweep", "Run many settings and seeds; the same command goes on after a crash."),
    ("report", "report:report", "Write the report.html of a run, or compare several runs."),
    ("inspect", "artifact:inspect", "Show where a .golf file's bytes go."),
    ("verify", "artifact:verify", "Check every checksum and tensor of a .golf file."),
    ("diff", "artifact:diff", "Show the differences between two .golf files."),
    ("unpack", "artifact:unpack", "Unpack a .golf file into a folder or a .safetensors file."),
    ("check", "check:check", "Check the entry of a contest against its rules, and explain a rule."),
    ("stats", "stats:stats", "Tell whether runs are better than others: policies, intervals, seeds still needed."),
    ("export", "export:export", "Write the entry of a run: a script that needs no golfcore, and its papers."),
    ("data", "data:app", "Fetch, prepare and verify text and token shards."),
    ("tok", "tok:app", "Train, use and audit tokenizers."),
    ("recipes", "recipes:app", "List, show, compare and explain recipes."),
    ("kernels", "kernels:app", "List and test the native operations."),
    ("bench", "bench:bench", "Check operations, then time them against plain torch."),
    ("ablate", "ablate:ablate", "Measure the effect of each part of a recipe, over seeds, on held-out training text."),
    ("preflight", "preflight:preflight", "Check a machine for a recipe, and time 30 steps of it."),
    ("doctor", "doctor:doctor", "Show what this machine has, and what to do about the rest."),
):
    app.command(f"golfcore.cli.{_target}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Returns:
        0 if it is done, 1 if a check failed or the input cannot be used, 2 for wrong usage, 70 for a fault in golfcore,
        75 if the machine lacks something for now, such as room on the disk, and the same command may work later. A
        command that a signal ends dies by that signal and does not return.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    prepare(own_process=arguments is None)
    _show_log()

    def work() -> int:
        try:
            result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        except cyclopts.CycloptsError as error:
            say(f"golfcore: {usage_line(error)}")
            return 2
        return result if isinstance(result, int) else 0

    return run_to_end("golfcore", work, debug=debug, unfinished="nothing was left half-written")


class _ToTerminal(logging.Handler):
    """Prints what the package logs, such as counts of what was read, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        from golfcore.cli.output import err

        err.print(record.getMessage(), markup=False, soft_wrap=True)


def _show_log() -> None:
    """Show the package's log on the terminal; of the ranks of a distributed run, the first speaks for all."""
    log = logging.getLogger("golfcore")
    log.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    log.handlers = [_ToTerminal()]
