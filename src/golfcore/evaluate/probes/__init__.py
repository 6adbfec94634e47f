"""Probe scorers for the ways in which scores were wrong: ours before each score, any scorer by ``golfcore probe``.

``before`` has the two probes that run before every score. ``suite`` runs all of the others on anything that follows the
protocol of ``scorer``: a packed model of ours (``packed``), or a stranger's file in a process of its own (``process``).
"""

from golfcore.evaluate.probes.before import future_flip, mixture_mass

__all__ = ["future_flip", "mixture_mass"]
