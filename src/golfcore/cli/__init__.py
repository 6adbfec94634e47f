"""The command line. Commands are loaded when they are called: ``golfcore --help`` imports neither torch nor numpy."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import cyclopts

from golfcore.errors import GolfError


def _version() -> str:
    from golfcore.environment import version_text

    return version_text()


app = cyclopts.App(
    name="golfcore",
    help="Train the best language model that fits a byte cap, and prove its score. Any command takes --debug.",
    version=_version,
    version_flags=["--version"],
)
for _name, _target in {
    "run": "golfcore.cli.run:run",
    "train": "golfcore.cli.stages:train",
    "quantize": "golfcore.cli.stages:quantize",
    "pack": "golfcore.cli.stages:pack",
    "eval": "golfcore.cli.stages:evaluate",
    "report": "golfcore.cli.report:report",
    "inspect": "golfcore.cli.artifact:inspect",
    "verify": "golfcore.cli.artifact:verify",
    "unpack": "golfcore.cli.artifact:unpack",
    "data": "golfcore.cli.data:app",
    "tok": "golfcore.cli.tok:app",
    "doctor": "golfcore.cli.doctor:doctor",
}.items():
    app.command(_target, name=_name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0 done, 1 a check failed or the input cannot serve, 2 wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = app(words, exit_on_error=False, print_error=True, result_action="return_value")
    except cyclopts.CycloptsError:
        return 2
    except GolfError as error:
        if debug:
            traceback.print_exc()
        print(f"golfcore: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("golfcore: interrupted; nothing was left half-written", file=sys.stderr)
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
