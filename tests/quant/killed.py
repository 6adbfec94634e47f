"""Runs golfcore in children that die by kill -9 at a given moment; a line of JSON in, the exit status out.

torch is imported once, in the parent; a child is forked before any parallel work.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import golfcore.bench.quant
import golfcore.pipeline.quantize
import golfcore.quant.fit  # noqa: F401  what the children would have to import
from golfcore import cli
from golfcore.quant import gptq


def dying(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """The function, whose call of this number kills the process instead."""
    left = [calls]

    def call(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return call


def child(moment: str, calls: int, words: list[str]) -> None:
    if moment == "columns":
        gptq.quantize_columns = dying(gptq.quantize_columns, calls)
    else:  # files are whole but not yet under their names
        os.fsync = dying(os.fsync, calls)
    os._exit(cli.main(words))


for line in sys.stdin:
    job = json.loads(line)
    if (pid := os.fork()) == 0:
        os.dup2(2, 1)
        child(**job)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
