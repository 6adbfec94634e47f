"""Stand in for ``golfcore.errors``: an exported script raises one kind of error."""

from __future__ import annotations

GolfError = InputError = UsageError = FormatError = RuleError = RuntimeError
