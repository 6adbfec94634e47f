"""Set how the OpenMP threads of torch wait for each other, before torch is imported."""

from __future__ import annotations

import os

# 1,000 to 4,000 were alike on idle cores; beside another process every thousand cost some 10 ms of a 340 ms step.
SPINS = "2000"


def share_cores() -> None:
    """Let torch's threads spin for a moment and then sleep while they wait for each other.

    Call it before torch is imported; it does nothing if OMP_WAIT_POLICY or GOMP_SPINCOUNT is set. By default the
    threads spin for long, and a spinning thread keeps the one that it waits for off its core. One pocket
    training step in ms, alone on 2 cores of an AMD EPYC and beside one other busy process:

    =================== ======== ==============
    threads             alone    beside another
    =================== ======== ==============
    spin (the default)  180-212  2,500-4,900
    sleep               195-233  338
    spin, then sleep    183-190  363
    =================== ======== ==============

    Medians; those of spinning beside another process were measured on an older commit.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["GOMP_SPINCOUNT"] = SPINS
