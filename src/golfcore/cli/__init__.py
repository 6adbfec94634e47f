"""The command line. Commands are loaded when they are called: ``golfcore --help`` imports neither torch nor numpy."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import cyclopts

from golfcore.errors import GolfError
from golfcore.openmp import share_cores


def _version() -> str:
    from golfcore.machine import version_text

    return version_text()


app = cyclopts.App(
    name="golfcore",
    help="Train the best language model that fits a byte cap, and prove its score. Any command takes --debug.",
    version=_version,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
for _name, _target, _help in (
    ("run", "run:run", "Train, quantize, pack and score a model from text."),
    ("train", "stages:train", "Train a recipe."),
    ("quantize", "stages:quantize", "Quantize a trained run."),
    ("pack", "stages:pack", "Pack a quantized run, an unpacked folder or .safetensors into a .golf file."),
    ("eval", "stages:evaluate", "Score a packed model in bits per byte."),
    ("plan", "plan:plan", "Predict bytes, time, memory, dollars and scaling of a run."),
    ("sweep", "sweep:sweep", "Run many settings and seeds; the same command goes on after a crash."),
    ("report", "report:report", "Write the report.html of a run, or compare several runs."),
    ("inspect", "artifact:inspect", "Show where a .golf file's bytes go."),
    ("verify", "artifact:verify", "Check every checksum and tensor of a .golf file."),
    ("diff", "artifact:diff", "Show the differences between two .golf files."),
    ("unpack", "artifact:unpack", "Unpack a .golf file into a folder or a .safetensors file."),
    ("check", "check:check", "Check the entry of a contest against its rules, and explain a rule."),
    ("stats", "stats:stats", "Tell whether runs are better than others: policies, intervals, seeds still needed."),
    ("data", "data:app", "Fetch, prepare and verify text and token shards."),
    ("tok", "tok:app", "Train, use and audit tokenizers."),
    ("recipes", "recipes:app", "List, show, compare and explain recipes."),
    ("kernels", "kernels:app", "List and test the native operations."),
    ("bench", "bench:bench", "Check operations, then time them against plain torch."),
    ("ablate", "ablate:ablate", "Measure the effect of each part of a recipe, over seeds, on held-out training text."),
    ("doctor", "doctor:doctor", "Show what this machine has, and what to do about the rest."),
):
    app.command(f"golfcore.cli.{_target}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 if it is done, 1 if a check failed or the input cannot be used, 2 for wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGTERM, _terminate)
    share_cores()
    try:
        result = app(words, exit_on_error=False, print_error=True, result_action="return_value")
    except cyclopts.CycloptsError:
        return 2
    except GolfError as error:
        if debug:
            traceback.print_exc()
        print(f"golfcore: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        hint = f"; {interrupt}" if str(interrupt) else "; nothing was left half-written"
        if debug:
            traceback.print_exc()
        print(f"golfcore: interrupted{hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away: no message, and none from the interpreter either
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(f"golfcore: {error}; run again with --debug for where", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
