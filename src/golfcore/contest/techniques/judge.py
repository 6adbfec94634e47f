"""Judge an abstract run: which losses that became the score depend on what they must not depend on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from golfcore.contest.flow.engine import Trace
from golfcore.contest.flow.state import Loss
from golfcore.contest.flow.values import Event, Thing, numbers

Site = tuple[str, int]
_TIMED = re.compile(r"time|elapsed|clock|second|perf|deadline|_ms\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A hypothesis: the rule, why, how to mend it, and the places that it rests on, the telling one first."""

    rule: str
    reason: str
    fix: str
    sites: tuple[Site, ...]
    confidence: float = 0.8
    review: bool = False  # whether it can be no more than a question


FIXES = {
    "I1": "Count the loss of each chunk before weights change because of it, or adapt on training data in time.",
    "I2": "Count the loss at the first pass over each chunk; later epochs may only train.",
    "I3": "Choose or mix by what is known before the token: by the context, or by an entropy of the distribution.",
    "I4": "Read the table before it is updated with the same tokens, in one pass.",
    "I5": "Look up the whole vocabulary by the context alone, mix distributions, normalize, then take the true token.",
    "I6": "Let gates look only at tokens before the one that is predicted.",
    "I7": "Turn the byte predictor into a distribution over all tokens before the true token is looked at.",
    "I8": "Fit on tokens that are already counted, and keep the vector for the next window.",
    "I9": "Reserve the time of the calibration within the clock, or calibrate on text that the model generates.",
    "I10": "Calibrate and select on training data, or on text that the model generates.",
    "I11": "Ship no validation tokens.",
    "I12": "Train on the training shards.",
    "I15": "Score all of the validation split.",
    "I17": "Train everything within the run, and read no file that the entry does not ship.",
    "I18": "Claim the mean of seeds that were chosen beforehand.",
}


def judge(trace: Trace) -> list[Hypothesis]:
    """Return the hypotheses that an abstract run supports."""
    return _Judge(trace).run()


class _Judge:
    def __init__(self, trace: Trace) -> None:
        self.engine = trace.engine
        self.found: dict[tuple[str, Site], Hypothesis] = {}
        validated = [
            thing
            for thing in self.engine.things
            if any(loss.of_validation for e in thing.adds for loss in self.losses(e))
        ]
        scored = [thing for thing in validated if thing.scored]
        self.sums = scored or validated
        self.adds = sorted((e for thing in self.sums for e in thing.adds), key=lambda e: e.order)

    def losses(self, event: Event) -> list[Loss]:
        return [self.engine.losses[number] for number in event.losses]

    def run(self) -> list[Hypothesis]:
        """Look at every sum of losses that becomes the score."""
        for thing in self.sums:
            for event in thing.adds:
                for loss in self.losses(event):
                    if loss.of_validation:
                        self.loss_of(thing, event, loss)
                self.marks(event)
                self.tables(thing, event)
        self.passes()
        self.seeds()
        self.limits()
        self.network()
        return list(self.found.values())

    def add(self, rule: str, reason: str, sites: list[Site], confidence: float = 0.8, *, review: bool = False) -> None:
        places = tuple(dict.fromkeys(site for site in sites if site[1]))
        key = (rule, places[0] if places else ("", 0))
        old = self.found.get(key)
        if old is None or (old.review and not review):
            self.found[key] = Hypothesis(rule, reason, FIXES[rule], places, confidence, review)

    # --- updates before the score -------------------------------------------------------------------------------------

    def loss_of(self, thing: Thing, event: Event, loss: Loss) -> None:
        """Look for updates of what a loss depends on that no earlier part of the same sum covers."""
        for update in loss.updates:
            if update.order > loss.order or self.covered(thing, update):
                continue
            if update.kind == "step":
                self.stepped(event, loss, update)
            elif update.kind == "calibrate":
                self.add(
                    "I10",
                    "Weights are set from statistics of validation text whose loss is counted only afterwards.",
                    [update.site, event.site],
                )
            elif update.kind == "select":
                self.add(
                    "I10",
                    "Weights are chosen by comparing scores on the validation split.",
                    [update.site, event.site],
                    0.5,
                    review=True,
                )

    def covered(self, thing: Thing, update: Event) -> bool:
        """Return whether the sum had losses before an update: what is updated then was scored first."""
        return any(event.order < update.order for event in thing.adds)

    def stepped(self, event: Event, loss: Loss, update: Event) -> None:
        """Classify a step along the gradient of validation losses before those losses are counted."""
        losses = self.losses(update)
        labels = frozenset().union(update.labels, *(x.labels for x in losses))
        if "VAL" not in labels:
            return
        sites = [update.site, *(x.site for x in losses[:1]), event.site]
        # A step that a condition may pass by in the loop that scores: training on what earlier iterations scored.
        unsure = bool(update.unsure & {run for run, _ in event.loops})
        if self.repeated_with(event, loss, update):
            return
        if self.is_vector(update):
            context = "head" in labels and "tail" in event.labels | loss.labels
            self.add(
                "I8",
                "A vector is fitted by gradient on validation tokens, and the loss of that window is counted after it.",
                sites,
                0.8,
                review=context,
            )
        elif unsure:
            self.add(
                "I1", "A step on validation tokens may come before their loss is counted.", sites, 0.4, review=True
            )
        elif "TRAIN" in labels:
            self.add("I12", "Training steps take batches from training and validation files alike.", sites)
        elif not self.trained_before(update):
            self.add("I12", "The model is trained on validation tokens alone.", sites)
        else:
            self.add(
                "I1",
                "Weights are updated on validation tokens, and the loss of those tokens is counted only afterwards.",
                sites,
            )

    def repeated_with(self, event: Event, loss: Loss, update: Event) -> bool:
        """Return whether the update belongs to a loop that repeats the whole pass: that is another rule."""
        return any((run, 1) in event.loops and run in {r for r, _ in update.loops} for run in self.repeats(event, loss))

    def is_vector(self, update: Event) -> bool:
        """Return whether all parameters of a step are tensors of their own, or modules that hold no more than one."""
        things = [self.engine.things[number] for number in update.things]
        owners = {owner.id: owner for t in things if "owner" in t.attributes for owner in t.attributes["owner"].things}
        single = {
            number
            for number, owner in owners.items()
            if sum(part.kind in ("leaf", "model") for value in owner.attributes.values() for part in value.things) == 1
        }
        free = [t for t in things if t.kind == "leaf" and "owner" not in t.attributes]
        held = [t for t in things if t.kind == "leaf" and "owner" in t.attributes]
        whole = all(t.kind == "leaf" or t.id in single for t in things)
        return bool(free or held) and whole and all(owner in single for owner in owners)

    def trained_before(self, update: Event) -> bool:
        """Return whether parameters were trained on training data alone before, or come from a file."""
        steps = [e for e in self.engine.events if e.kind == "step" and e.order < update.order]
        for step in steps:
            labels = frozenset().union(step.labels, *(loss.labels for loss in self.losses(step)))
            if "TRAIN" in labels and "VAL" not in labels:
                return True
        if any("TRAIN" in loss.labels and "VAL" not in loss.labels for loss in self.engine.losses):
            return True
        if any(e.kind == "loaded" and e.order < update.order for e in self.engine.events):
            return True
        # Without a training loop at all the model comes from elsewhere; a main loop over validation data has a clock.
        return not self.engine.clocked(update)

    # --- tables -------------------------------------------------------------------------------------------------------

    def tables(self, thing: Thing, event: Event) -> None:
        """Look for look-ups in tables that were filled from validation tokens which the sum does not cover yet."""
        labels = frozenset().union(event.labels, *(loss.labels for loss in self.losses(event)))
        for number in numbers(labels, "rd:"):
            read = self.engine.events[number]
            table = self.engine.things[read.things[0]]
            writes = [w for w in table.writes if w.order < read.order and "VAL" in w.labels]
            for write in writes[:50]:
                if not self.covered(thing, write) and not self.causal(table, write, read):
                    self.add(
                        "I4",
                        "A table is filled from validation tokens and read before their loss is counted.",
                        [write.site, read.site, event.site],
                    )
                    break
        self.choices(thing, event, labels)
        for number in numbers(labels, "st:"):
            statistic = self.engine.events[number]
            if not self.covered(thing, statistic):
                self.add(
                    "I10",
                    "Statistics of validation tokens that are not scored yet enter the prediction.",
                    [statistic.site, event.site],
                    0.7,
                )

    def choices(self, thing: Thing, event: Event, labels: frozenset[str]) -> None:
        """Look for settings that were chosen by comparing scores of validation text which is counted only later."""
        for number in numbers(labels, "sel:"):
            choice = self.engine.events[number]
            if self.covered(thing, choice):
                continue
            runs = {run for run, _ in choice.loops}
            training = any(
                runs & {run for run, _ in step.loops} and "TRAIN" in step.labels
                for step in self.engine.events
                if step.kind == "step"
            )
            self.add(
                "I10",
                "A setting was chosen by comparing scores on validation text that is counted only afterwards.",
                [choice.site, event.site],
                0.7,
                review=training,
            )

    def causal(self, table: Thing, write: Event, read: Event) -> bool:
        """Return whether a loop reads the table before it writes it, token by token or chunk by chunk."""
        runs = {run for run, _ in read.loops}
        common = [loop for loop in write.loops if loop[0] in runs]
        if not common:
            return False
        run = common[-1][0]
        if run not in self.engine.driving and f"i:{run}" not in read.labels | write.labels:
            return False  # an iteration has no tokens of its own: the whole pass is repeated
        first_reads = [r.order for r in table.reads if (run, 0) in r.loops]
        first_writes = [w.order for w in table.writes if (run, 0) in w.loops]
        return bool(first_reads) and bool(first_writes) and min(first_reads) < min(first_writes)

    # --- what the counted loss is made of -----------------------------------------------------------------------------

    def marks(self, event: Event) -> None:
        """Look for marks on a loss that is counted."""
        losses = self.losses(event)
        labels = frozenset().union(event.labels, *(loss.labels for loss in losses))
        if "VAL" not in labels:
            return
        sites = [event.site, *(loss.site for loss in losses[:2])]
        if "oracle" in labels:
            self.add(
                "I3", "The better of two losses of the same token is counted.", [self.site_of("oracle", event), *sites]
            )
        if "bkey" in labels:
            self.add(
                "I7",
                "A predictor runs along the bytes of the true token, and its probability is mixed into that token's.",
                sites,
            )
        elif "tkey" in labels:
            self.add(
                "I5",
                "A table is read at a hash of context and true token, and the result enters that token's probability.",
                sites,
            )
        if "cls" in labels and "bkey" not in labels:
            self.add("I6", "A property of the true token decides how it is predicted.", sites, 0.75)
        if "paid" in labels:
            self.add(
                "I11",
                "Tokens from a file are compared with the true tokens, and what matches is counted as free.",
                sites,
            )
        if "part" in labels:
            self.add("I15", "Only a fixed part of the validation tokens is scored.", sites, 0.75)

    def site_of(self, label: str, event: Event) -> Site:
        return self.engine.marked.get(label, event.site)

    # --- repeated passes ----------------------------------------------------------------------------------------------

    def repeats(self, event: Event, loss: Loss) -> Iterator[int]:
        """Yield loops whose iterations have no data of their own, so that the same tokens are counted again."""
        labels = loss.target
        if "src" in labels:
            return
        for run, iteration in event.loops:
            if iteration == 1 and run not in self.engine.driving and f"i:{run}" not in labels:
                yield run

    def passes(self) -> None:
        """Look for passes that are repeated while the model learns from them, and for the best of several."""
        steps = [e for e in self.engine.events if e.kind == "step"]
        for event in self.adds:
            for loss in self.losses(event):
                if not loss.of_validation:
                    continue
                for run in self.repeats(event, loss):
                    inside = [s for s in steps if run in {r for r, _ in s.loops}]
                    learned = [s for s in inside if any(x.of_validation for x in self.losses(s))]
                    if learned:
                        self.add(
                            "I2",
                            "The same validation tokens are scored in every epoch while weights are updated on them.",
                            [event.site, learned[0].site],
                        )
        for choice in (e for e in self.engine.events if e.kind in ("best", "compare") and "VAL" in e.labels):
            runs = [run for run, _ in choice.loops if run not in self.engine.driving]
            again = [e for e in self.adds for loss in self.losses(e) for run in self.repeats(e, loss) if run in runs]
            trained = [
                s
                for s in steps
                if set(runs) & {r for r, _ in s.loops} and not any(x.of_validation for x in self.losses(s))
            ]
            seeded = [e for e in self.engine.events if e.kind == "seed" and any(f"i:{run}" in e.labels for run in runs)]
            if again and not trained and not seeded:
                sites = [choice.site, again[0].site]
                # A comparison alone may be for a log; what min() gives is kept.
                kept = choice.kind == "best"
                self.add(
                    "I3", "Several passes score the same tokens, and the best is kept.", sites, 0.7, review=not kept
                )
            elif choice.kind == "best" and not choice.loops:
                self.add(
                    "I3", "The best of several scores of the validation split is kept.", [choice.site], 0.5, review=True
                )

    def seeds(self) -> None:
        """Look for a loop over seeds whose scores are compared."""
        for event in (e for e in self.engine.events if e.kind == "seed"):
            for run, iteration in event.loops:
                inside = [e for e in self.adds if any(r == run for r, _ in e.loops)]
                if f"i:{run}" not in event.labels or iteration or not inside:
                    continue
                chosen = [
                    e
                    for e in self.engine.events
                    if e.kind in ("best", "compare") and e.order > inside[0].order and "VAL" in e.labels
                ]
                if chosen:
                    self.add(
                        "I18", "Seeds are tried in a loop, and the best score is kept.", [event.site, chosen[0].site]
                    )

    def network(self) -> None:
        """Look for weights from elsewhere, and for downloads once training began or whose content enters the score."""
        events = self.engine.events
        trained = [e.order for e in events if e.kind == "step"]
        loaded = any(e.kind == "loaded" and "net" in e.labels for e in events)
        for event in (e for e in events if e.kind == "network"):
            # A program that only fetches data, or fetches it before it trains, does what a preparation does.
            late = bool(self.adds) and (not trained or event.order > min(trained))
            certain = event.note.startswith("weights") or (event.note.startswith("download") and (late or loaded))
            self.add("I17", f"The program reaches outside: {event.note}.", [event.site], 0.8, review=not certain)

    def limits(self) -> None:
        """Look for a loop over validation tokens that ends at a fixed number of them."""
        for event in (e for e in self.engine.events if e.kind == "limit" and not _TIMED.search(e.note)):
            runs = {event.loops[-1][0]} if event.loops else set()
            inside = [a for a in self.adds if runs & {r for r, _ in a.loops}]
            if inside:
                self.add("I15", f"Scoring stops early: {event.note}.", [event.site, inside[0].site], 0.7)
