"""The result of one probe, as the table and the JSON of ``golfcore probe`` show it."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 1e-3  # nats; kernels may round differently when other rows of a product change


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The finding of one probe.

    Attributes:
        name: the probe.
        passed: False if the scorer breaks a rule; None if the probe could not be made.
        figure: the worst that was measured, in ``unit``.
        tolerance: the largest figure that passes.
        unit: unit of both.
        proves: what a pass shows, or a failure.
        open: what a pass leaves unproven; empty if nothing that the probe is about.
        first: the first token, counted from 0, at which the figure was too large; None if there is none.
        found: one sentence on what was found; empty if there is nothing to say.
    """

    name: str
    passed: bool | None
    figure: float
    tolerance: float
    unit: str
    proves: str
    open: str = ""
    first: int | None = None
    found: str = ""
