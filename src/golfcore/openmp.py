"""Set how many OpenMP threads torch starts and how they wait for each other, before torch is imported."""

from __future__ import annotations

import os

from golfcore import machine

# Each library reads its own; torch built with MKL takes the lower of the first two.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# 1,000 to 4,000 were alike on idle cores; beside another process every thousand cost some 10 ms of a 340 ms step.
SPINS = "2000"

corrections: dict[str, str] = {}  # by variable: what became of a number of threads that could not be kept


def share_cores() -> None:
    """Start no more threads than fit, and let them spin for a moment and then sleep while they wait for each other.

    Call it before torch is imported. Variables that ask for more threads than cores and quota serve, or for no number
    at all, are set to what fits, for this process and those that it starts; ``corrections`` says so.

    How threads wait is left alone if OMP_WAIT_POLICY or GOMP_SPINCOUNT is set. By default they spin for long, and a
    spinning thread keeps the one that it waits for off its core. One pocket training step in ms, alone on 2 cores of
    an AMD EPYC and beside one other busy process:

    =================== ======== ==============
    threads             alone    beside another
    =================== ======== ==============
    spin (the default)  180-212  2,500-4,900
    sleep               195-233  338
    spin, then sleep    183-190  363
    =================== ======== ==============

    Medians; those of spinning beside another process were measured on an older commit.
    """
    _fit_variables()
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["GOMP_SPINCOUNT"] = SPINS


def _fit_variables() -> None:
    fit = machine.fitting_threads()
    if fit < machine.cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(fit))  # or each library would count the cores alone
    for name in THREAD_VARIABLES:
        given = os.environ.get(name)
        asked = machine.asked_threads(given or "")
        if given is None or (asked is not None and asked <= fit):
            continue
        os.environ[name] = str(fit)
        why = f"more than the {fit} that run at once here" if asked else "no number of threads"
        corrections[name] = f"{name}={given!r} is {why}: {fit} {'is' if fit == 1 else 'are'} used"
