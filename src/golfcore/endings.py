"""Bring a program to its end: an error in one line, a fault in one line and a file, a signal as the signal's death.

A shell that runs ``golfcore`` in a loop stops at Ctrl-C only if golfcore dies by that signal. So the work is cleaned
up, one line says what to do next, and then the process sends the signal to itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from golfcore import crash
from golfcore.errors import GolfError

HERE = str(Path(__file__).parent)
TWICE_S = 0.5  # one Ctrl-C or one ``timeout`` may send the same signal twice; a second one after that is meant


class Ends:
    """The signal that asked this process to end, and the exit code of a thread that died."""

    def __init__(self) -> None:
        self.signal = 0
        self.thread_code = 0
        self._at = 0.0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt at the first signal; end at once at a second one, which comes during the clean-up."""
        if self.signal and time.monotonic() - self._at > TWICE_S:
            die(number)
        if not self.signal:
            self.signal, self._at = number, time.monotonic()
            raise KeyboardInterrupt


def run_to_end(program: str, work: Callable[[], int], *, debug: bool = False, unfinished: str = "") -> int:
    """Call ``work`` and return its exit code, or that of the error it raised, which is printed as one line.

    Does not return after SIGINT, SIGTERM or SIGHUP, and where the reader of standard output has gone away: the process
    then dies by that signal.

    Args:
        program: the name at the beginning of each line.
        work: returns an exit code.
        debug: also print the traceback of an error.
        unfinished: what to say of an interrupt that does not say itself how to go on.
    """
    with _listening(program, debug) as ends:
        try:
            code = work()
            if sys.stdout is not None:
                sys.stdout.flush()  # a broken pipe or a full disk shows here; later it would only be grumbled about
            return code
        except GolfError as error:
            return crash.report(program, error, debug=debug)
        except KeyboardInterrupt as interrupt:
            if ends.thread_code:  # a thread told what happened, and ended the run
                return ends.thread_code
            if debug:
                traceback.print_exc()
            crash.say(f"{program}: interrupted; {interrupt if str(interrupt) else unfinished}".rstrip("; "))
            return die(ends.signal or signal.SIGINT)
        except BrokenPipeError:
            return die(signal.SIGPIPE)
        except Exception as error:
            return crash.report(program, error, debug=debug)


def report_uncaught(program: str) -> None:
    """Report errors outside of ``run_to_end`` as it does, where Python would print a traceback.

    The exit code is then 1, whatever the error.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        crash.report(program, error)

    sys.excepthook = hook


def die(number: int) -> NoReturn:
    """End this process by a signal, as if nothing had caught it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container survives its own signals


@contextmanager
def _listening(program: str, debug: bool) -> Iterator[Ends]:
    """Handle signals and the errors of threads until the block ends; signals that are ignored stay so (nohup)."""
    ends = Ends()
    before = threading.excepthook

    def on_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is None or isinstance(failed.exc_value, SystemExit):
            return
        name = failed.thread.name if failed.thread is not None else "unknown"
        code = crash.report(program, failed.exc_value, debug=debug, thread=name)
        if _is_ours(failed.exc_traceback) and not ends.signal:  # the run may wait for that thread for ever
            ends.thread_code = code
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    kept = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                kept[number] = signal.signal(number, ends.on_signal)
    threading.excepthook = on_thread
    try:
        yield ends
    finally:
        threading.excepthook = before
        for number, handler in kept.items():
            signal.signal(number, handler)


def _is_ours(trace: TracebackType | None) -> bool:
    """Return whether an error came from a function of golfcore; a thread of rich or torch ends alone."""
    return any(frame.filename.startswith(HERE) for frame in traceback.extract_tb(trace))
