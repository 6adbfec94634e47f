"""Ask ``nvidia-smi``, which comes with the driver, for the clocks, limits and faults of a GPU."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Mapping

from golfcore.boxcheck.findings import Failed
from golfcore.machine import one_line

FIELDS = (
    "name", "driver_version", "mig.mode.current", "clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw",
    "power.limit", "power.default_limit", "ecc.errors.uncorrected.volatile.total",
)  # fmt: skip
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # the second name is that before driver 535
# Bits of the field, from nvml.h. A power cap (4) is how an H100 ends every long product, and no fault.
SLOWED = {
    0x2: ("an application clock was set", "nvidia-smi -rac"),
    0x8: ("hardware slowdown", "the GPU is too hot or its power supply fails: take another machine"),
    0x20: ("too hot (software slowdown)", "cooling fails: take another machine"),
    0x40: ("too hot (hardware slowdown)", "cooling fails: take another machine"),
    0x80: ("the power brake", "the power supply fails: take another machine"),
}
LEAST_CLOCK = 0.5  # of the highest clock, under load; an H100 at its power cap keeps more than 0.6 (assumed)
LEAST_RATE = 0.9  # of the median GPU's products


def ask(device_uuid: str) -> dict[str, str]:
    """Return the fields of one GPU by name; a field that the GPU does not have is ``[N/A]``.

    Raises:
        Failed: ``nvidia-smi`` is missing or says nothing.
    """
    trouble = ""
    for reason in REASONS:
        names = (*FIELDS, reason)
        command = ("nvidia-smi", "-i", device_uuid, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits")
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=30
            )
        except (OSError, subprocess.SubprocessError) as error:
            trouble = one_line(error)
            break
        rows = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines())]
        if done.returncode == 0 and rows and len(rows[0]) == len(names):
            return dict(zip((*FIELDS, REASONS[0]), rows[0], strict=True))
        trouble = " ".join((done.stdout + done.stderr).split())[:200]
    raise Failed(
        f"nvidia-smi tells nothing of {device_uuid} ({trouble})", "repair the driver, or take a container that has it"
    )


def judge(fields: Mapping[str, str], tflops: float) -> str:
    """Return a text on a GPU's clocks under load.

    Args:
        fields: from ``ask``, read while products ran.
        tflops: the rate of these products in 10^12 operations per second.

    Raises:
        Failed: the GPU is held back, was limited, has memory faults, or is a slice of one.
    """
    if fields["mig.mode.current"] == "Enabled":
        raise Failed("the GPU is cut into MIG slices", "nvidia-smi -mig 0 as root, then begin again")
    bits = int(fields[REASONS[0]], 16) if fields[REASONS[0]].startswith("0x") else 0
    for bit, (what, remedy) in SLOWED.items():
        if bits & bit:
            raise Failed(f"the clocks are held back: {what}, at {fields['temperature.gpu']} degrees Celsius", remedy)
    clock, highest = _number(fields["clocks.sm"]), _number(fields["clocks.max.sm"])
    if clock is not None and highest and clock < LEAST_CLOCK * highest:
        raise Failed(f"the clock is {clock:.0f} of {highest:.0f} MHz under load", "take another machine")
    limit, usual = _number(fields["power.limit"]), _number(fields["power.default_limit"])
    if limit is not None and usual is not None and limit < usual:
        raise Failed(f"the power limit is {limit:.0f} W, by default {usual:.0f} W", f"nvidia-smi -pl {usual:.0f}")
    faults = _number(fields["ecc.errors.uncorrected.volatile.total"])
    if faults:
        raise Failed(f"{faults:.0f} uncorrected memory faults since the last start", "take another machine")
    return (
        f"{fields['clocks.sm']} of {fields['clocks.max.sm']} MHz, {fields['power.draw']} of {fields['power.limit']} W, "
        f"{fields['temperature.gpu']} degrees Celsius, {tflops:,.0f} TFLOP/s in bf16 products"
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
