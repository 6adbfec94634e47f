"""Gather what every check of an entry looks at: its files, claims, logs and the rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from golfcore.contest.findings import Finding, Kind, Notes
from golfcore.contest.folder import README, SCRIPT, SUBMISSION, Entry, EntryFile
from golfcore.contest.log_facts import SAME, LogFacts, finals, looks_like_log, read_log, seed_of
from golfcore.contest.readme import ReadmeScore, read_readme
from golfcore.contest.ruleset import RuleSet, Severity, Track
from golfcore.contest.submission import Submission, parse_submission

MEAN_DIGITS = 2e-4  # a mean that was rounded to three or four digits


@dataclass
class Context:
    """An entry that was read, and the notes of its check."""

    entry: Entry
    rules: RuleSet
    notes: Notes
    track: Track | None
    submission: Submission
    submission_file: EntryFile | None
    script: EntryFile | None
    logs: list[LogFacts]
    readme: list[ReadmeScore]
    supporting: list[LogFacts] = field(default_factory=list)  # the logs that the claimed score rests on
    supported: bool = False  # whether those logs have the claimed score

    @property
    def record(self) -> bool:
        """Whether limits are enforced on this track."""
        return self.track is None or self.track.record

    def flag(
        self,
        rule: str,
        severity: Severity,
        explanation: str,
        fix: str,
        *,
        file: str = "",
        line: int = 0,
        kind: Kind = "log",
        confidence: float = 0.9,
    ) -> None:
        """Add a finding, with the line of the file that it rests on."""
        source = self.entry.files.get(file)
        lines = source.lines(line) if source and line else ()
        self.notes.add(Finding(rule, severity, explanation, fix, kind, confidence, file, line, lines))

    def strict(self, severity: Severity) -> Severity:
        """Return the severity on a record track, and no more than REVIEW elsewhere."""
        return severity if self.record or severity not in ("BLOCK", "LIKELY") else "REVIEW"

    def vocabulary(self) -> tuple[int | None, bool]:
        """Return the size of the vocabulary that the logs or claims tell, and whether CaseOps is named."""
        words = " ".join(
            value
            for log in self.logs
            for key, value in log.settings.items()
            if key in ("tokenizer_path", "train_files", "val_files", "datasets_dir", "data_path", "caseops_enabled")
        )
        words += f" {self.entry.folder.name} {self.submission.raw.get('tokenizer', '')}"
        caseops = "caseops" in words.lower() or any(log.settings.get("caseops_enabled") == "True" for log in self.logs)
        sizes = [log.settings.get("vocab_size", "") for log in self.logs]
        sizes += [str(self.submission.raw.get("vocab_size", ""))]
        number = next((int(size) for size in sizes if size.isdigit()), None)
        if number is None:
            for size in (1024, 4096, 8192):
                if any(f"{mark}{size}" in words.lower() for mark in ("sp", "_", "fineweb_", "bpe ", "bpe_")):
                    number = size
            if "byte260" in words.lower():
                number = 260
        return number, caseops


def gather(entry: Entry, rules: RuleSet) -> Context:
    """Return the context of an entry that was read."""
    notes = Notes(rules, not_checked=list(entry.not_checked))
    for finding in entry.findings:
        notes.add(finding)
    file = entry.named(SUBMISSION)
    submission = parse_submission(file.text) if file is not None and file.text is not None else Submission()
    readme = entry.named(README)
    logs = [read_log(log.name, log.text or "") for log in entry.logs()]
    context = Context(
        entry=entry,
        rules=rules,
        notes=notes,
        track=_track(entry, submission, rules),
        submission=submission,
        submission_file=file,
        script=entry.named(SCRIPT),
        logs=[log for log in logs if looks_like_log(log)],
        readme=read_readme(readme.text) if readme is not None and readme.text is not None else [],
    )
    context.supporting, context.supported = _supporting(context)
    return context


def _track(entry: Entry, submission: Submission, rules: RuleSet) -> Track | None:
    """Return the track that the folder lies in, else the one that submission.json names, else the first."""
    names = [entry.folder.resolve().parent.name, str(submission.values.get("track", ""))]
    for name in names:
        if track := rules.track(name):
            return track
        if "non" in name.lower() and "record" in name.lower():
            return next((track for track in rules.tracks if not track.record), None)
    return rules.tracks[0] if rules.tracks else None


def _supporting(context: Context) -> tuple[list[LogFacts], bool]:
    claims = [context.submission.number("val_bpb")]
    claims += [seed.get("val_bpb") for seed in context.submission.seeds.values()]
    known = [claim for claim in claims if claim is not None]
    scored = [log for log in context.logs if log.val_bpb is not None]
    found = [
        log for log in scored if any(abs(event["val_bpb"] - claim) < SAME for event in finals(log) for claim in known)
    ]
    if found:
        return found, True
    values = [log.val_bpb for log in scored if log.val_bpb is not None]
    close = bool(known) and bool(values) and abs(sum(values) / len(values) - known[0]) < MEAN_DIGITS
    return context.logs, close


def by_seed(logs: list[LogFacts]) -> dict[int, list[LogFacts]]:
    """Return the logs of each seed."""
    found: dict[int, list[LogFacts]] = {}
    for log in logs:
        seed = seed_of(log)
        if seed is not None:
            found.setdefault(seed, []).append(log)
    return found
