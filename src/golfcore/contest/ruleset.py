"""Load the rules of a contest from TOML: rules with their texts, limits, tracks, and policies of comparison."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from golfcore.errors import FormatError, InputError, UsageError
from golfcore.suggest import nearest

Severity = Literal["BLOCK", "LIKELY", "REVIEW", "FORMAT", "INFO"]
SEVERITIES: tuple[Severity, ...] = ("BLOCK", "LIKELY", "REVIEW", "FORMAT", "INFO")
DEFAULT = "parameter_golf_audit"
FOLDER = Path(__file__).parent / "rules"
MAX_BYTES = 1_000_000
MAX_PARENTS = 8


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a rule set; a key that is not one of its fields is an error."""


class Rule(_Part, frozen=True):
    """A rule: ``severity`` is the highest that a finding may have, ``check`` the part of the checker that decides."""

    id: str
    title: str
    text: str
    source: str
    severity: Severity
    check: str


class Limits(_Part, frozen=True):
    """Budgets in bytes and seconds, and what a clock may overrun before it is a finding."""

    cap_bytes: int
    train_s: float
    eval_s: float
    train_tolerance_s: float = 1.0
    calibration_tolerance_s: float = 1.0
    min_seeds: int = 3


class Data(_Part, frozen=True):
    """The data of the contest; 0 means that the number is not known."""

    train_shards: int = 0
    val_documents: int = 0


class Policy(_Part, frozen=True):
    """A policy that decides whether an entry is better: a floor in nats per token and a bound on p."""

    name: str
    text: str
    floor_nats: float
    p: float


class Track(_Part, frozen=True):
    """A track: ``name`` is its folder; limits are enforced where ``record`` is true."""

    name: str
    text: str
    record: bool


class KnownTokenizer(_Part, frozen=True):
    """A tokenizer of the contest, with the mean bytes of a validation token and how many tokens the split has."""

    name: str
    vocab_size: int
    bytes_per_token: float
    val_tokens: int = 0


class RuleSet(_Part, frozen=True):
    """The rules of a contest at a date."""

    name: str
    title: str
    date: datetime.date
    source: str
    limits: Limits
    rules: list[Rule]
    data: Data = Data()
    policies: list[Policy] = []
    tracks: list[Track] = []
    tokenizers: list[KnownTokenizer] = []

    def rule(self, name: str) -> Rule:
        """Return the rule with an id, in any spelling of case.

        Raises:
            UsageError: there is none.
        """
        found = next((rule for rule in self.rules if rule.id.lower() == name.lower()), None)
        if found is None:
            known = [rule.id for rule in self.rules]
            raise UsageError(f"{self.name} has no rule {name!r}; it has {', '.join(known)}{nearest(name, known)}")
        return found

    def track(self, name: str) -> Track | None:
        """Return the track whose folder has this name, or which contains it: ``10min_16mb``."""
        wanted = name.lower().replace("-", "_").strip("/")
        if not wanted:
            return None
        exact = [track for track in self.tracks if track.name.lower() == wanted]
        loose = [track for track in self.tracks if wanted in track.name.lower() or track.name.lower() in wanted]
        return next(iter([*exact, *loose]), None)


def rule_set_names() -> list[str]:
    """Return the names of the rule sets that come with golfcore, by date."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=lambda name: load_rules(name).date)


def load_rules(rules: str | Path = DEFAULT) -> RuleSet:
    """Return a rule set by its name, or from a TOML file.

    A file may begin from another set with ``extends = "NAME"``. Tables are merged key by key, rules are replaced one by
    one by their id, and any other list replaces the list of the set that it extends.

    Raises:
        UsageError: no rule set has this name.
        InputError: the file cannot be read.
        FormatError: a key is unknown, missing or of the wrong type, or an id occurs twice.
    """
    path = Path(rules)
    if not (isinstance(rules, Path) or path.suffix == ".toml"):
        path = FOLDER / f"{rules}.toml"
    return _build(_merged(path, 0), path)


def _merged(path: Path, depth: int) -> dict[str, Any]:
    tables = _read(path)
    base = tables.pop("extends", None)
    if base is None:
        return tables
    if not isinstance(base, str) or depth >= MAX_PARENTS:
        raise FormatError(
            f"{path}: extends is {base!r}; expected the name of a rule set that leads to none that extends"
        )
    parent = FOLDER / f"{base}.toml" if not base.endswith(".toml") else path.parent / base
    return _over(_merged(parent, depth + 1), tables)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the changes of a set that extends it."""
    result = dict(base)
    for key, value in changes.items():
        if key == "rules" and isinstance(value, list):
            own = {rule.get("id"): rule for rule in value if isinstance(rule, dict)}
            kept = [own.pop(rule.get("id"), rule) for rule in base.get("rules", [])]
            result[key] = [*kept, *own.values()]
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = base[key] | value
        else:
            result[key] = value
    return result


def _read(path: Path) -> dict[str, Any]:
    if path.parent == FOLDER and not path.is_file():
        known = [file.stem for file in sorted(FOLDER.glob("*.toml"))]
        raise UsageError(
            f"no rule set {path.stem!r}; known: {', '.join(known)}, or a .toml file{nearest(path.stem, known)}"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read rules from {path}: {error.strerror or error}; name a .toml file") from error
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} has over {MAX_BYTES:,} bytes; expected a rule set, which has a few thousand")
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: not TOML: {error or 'nested too deeply'}") from error


def _build(tables: dict[str, Any], path: Path) -> RuleSet:
    try:
        made = msgspec.convert(tables, RuleSet)
    except msgspec.ValidationError as error:
        raise FormatError(f"{path}: {error}; docs/guides/own-contest.md has an example") from error
    for kind, names in (
        ("rule", [rule.id for rule in made.rules]),
        ("policy", [policy.name for policy in made.policies]),
        ("track", [track.name for track in made.tracks]),
    ):
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise FormatError(f"{path}: {kind} {double!r} occurs twice; give each its own name")
    limits = made.limits
    if min(limits.cap_bytes, limits.train_s, limits.eval_s) <= 0 or limits.min_seeds < 1:
        raise FormatError(
            f"{path}: [limits] has a number that is not positive; expected bytes, seconds and seeds over 0"
        )
    if any(not 0 < policy.p < 1 for policy in made.policies):
        raise FormatError(f"{path}: a policy has p outside 0 to 1; expected for example 0.01")
    return made
