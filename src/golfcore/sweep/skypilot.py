"""Write a sweep as a SkyPilot task, a file for ``sky launch``; SkyPilot is neither imported nor run here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence


def sky_task(name: str, words: Sequence[str], *, accelerators: str, hours: float) -> str:
    """Return the YAML of a task that installs golfcore from the working folder and runs the sweep.

    Every value is written as a JSON string, which is also YAML: no word of the user can become syntax.

    Args:
        name: name of the task.
        words: words of the command after ``golfcore sweep``.
        accelerators: accelerators as SkyPilot names them, for example ``H100:8``.
        hours: after which an idle or forgotten machine is taken down.
    """
    command = shlex.join(["golfcore", "sweep", *words])
    lines = [
        "# sky launch -c sweep THIS_FILE; run it again after a preemption: the sweep goes on from its folder.",
        f"name: {json.dumps(name)}",
        "workdir: .",
        "resources:",
        f"  accelerators: {json.dumps(accelerators)}",
        "  use_spot: true",
        "  disk_size: 256",
        f"  autostop: {json.dumps({'idle_minutes': 15, 'down': True})}",
        f"setup: {json.dumps('set -e; pip install -q torch && GOLF_CUDA=ON pip install -q .[sweep,hub]')}",
        f"run: {json.dumps(f'timeout {round(hours * 3600)} {command}')}",
    ]
    return "\n".join(lines) + "\n"
