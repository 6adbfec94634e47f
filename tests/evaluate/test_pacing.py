"""The evaluation's clock, read from a fake timer: which stride is taken, kept, given up, and what is said of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from tiny import VOCAB, random_text
from torch import Tensor, nn

from golfcore.errors import InputError
from golfcore.evaluate.clock import Clock, WindowCost, finest_within, strides
from golfcore.evaluate.scorer import Score, ScoredText, score
from golfcore.model.interface import LanguageModel

TEXT = random_text(2001)  # 2,000 targets
WINDOW_S, POSITION_S = 0.1, 0.001  # what a window costs, and each position that it scores


class Timed(LanguageModel):
    """Logits of the next token from the present one, each window at a price in seconds of a fake timer."""

    def __init__(self, speed: Callable[[float], float] = lambda now: 1.0) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCAB, VOCAB)
        with torch.no_grad():
            self.table.weight.normal_(generator=torch.Generator().manual_seed(0))
        self.now, self.speed = 0.0, speed

    def loss(self, batch, context):  # type: ignore[no-untyped-def]
        raise AssertionError("scoring does not train")

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.table(symbols_BT), state

    def last_logits(self, symbols_BT: Tensor, last: int) -> Tensor:
        self.now += symbols_BT.size(0) * (WINDOW_S + POSITION_S * last) / self.speed(self.now)
        return super().last_logits(symbols_BT, last)

    def parameter_roles(self):  # type: ignore[no-untyped-def]
        raise AssertionError("scoring asks for no roles")


def paced(
    budget_s: float, *, speed: Callable[[float], float] = lambda now: 1.0, text: ScoredText = TEXT,
    spent_s: float = 0.0, stride: object = "auto", finest: int = 4, **ranks: object,
) -> tuple[Score, list[str], float]:  # fmt: skip
    """The score, what was said, and when the fake timer stood at its end."""
    model, said = Timed(speed), list[str]()
    clock = Clock(budget_s, began=-spent_s, now=lambda: model.now)
    result = score(
        model, text, context=64, stride=stride, batch_tokens=128, clock=clock, finest=finest, tell=said.append, **ranks
    )  # type: ignore[arg-type]
    return result, [line for line in said if line.startswith("warning: ")], model.now + spent_s


def cost_of(stride: int) -> float:
    """Seconds of the whole text, give or take the first window and the tail."""
    return 2000 / stride * (WINDOW_S + POSITION_S * stride)


def test_strides_are_halves_of_the_context() -> None:
    assert strides(256, 16) == [256, 128, 64, 32, 16]
    assert strides(100, 20) == [100, 50, 25]
    assert strides(64, 64) == strides(64, 1000) == [64]
    assert strides(1, 1) == [1]


def test_a_cost_between_two_measurements_is_on_their_line() -> None:
    cost = WindowCost((4, 0.104), (64, 0.164))
    for stride in (4, 8, 16, 32, 64):
        assert cost.seconds(2000, stride) == pytest.approx(cost_of(stride))
    assert finest_within(cost, 2000, [64, 32, 16], cost_of(16)) == 16
    assert finest_within(cost, 2000, [64, 32, 16], cost_of(64) - 1) is None


@pytest.mark.parametrize("wanted", [64, 32, 16, 8, 4])
def test_the_finest_stride_that_leaves_a_tenth_is_taken(wanted: int) -> None:
    # Measuring costs less than two seconds here: five batches of two windows for each of two strides, at most.
    budget_s = (cost_of(wanted) + 4) / 0.9
    result, warnings, ended_s = paced(budget_s)
    assert result.pace is not None
    assert (result.stride, result.pace.strides, warnings) == (wanted, [(1, wanted)], [])
    assert ended_s <= 0.95 * budget_s
    assert result.pace.predicted_s == pytest.approx(cost_of(wanted))
    assert result.pace.tokens_per_s == pytest.approx(2000 / cost_of(wanted))
    assert f"eval_stride:{wanted} (auto)" in result.pace.line()
    # The windows are those of the same stride given by hand, to the last bit.
    by_hand = score(Timed(), TEXT, context=64, stride=wanted, batch_tokens=128)
    assert by_hand.ledger_sha256 == result.ledger_sha256


def test_what_was_spent_before_counts() -> None:
    budget_s = (cost_of(16) + 4) / 0.9
    result, _, _ = paced(budget_s, spent_s=0.0)
    later, _, ended_s = paced(budget_s, spent_s=6.0)
    assert (result.stride, later.stride) == (16, 32)
    assert later.pace is not None and later.pace.before_s >= 6
    assert ended_s < budget_s


def test_auto_stops_at_the_finest_that_is_allowed() -> None:
    assert paced(1e6, finest=16)[0].stride == 16


def test_a_budget_too_small_for_anything_takes_whole_windows_and_says_so() -> None:
    result, warnings, _ = paced(cost_of(64) / 2)
    assert result.stride == 64
    assert len(warnings) == 1
    assert "even the coarsest stride, 64, needs about" in warnings[0]
    assert "the score would not count" in warnings[0]
    assert result.pace is not None and result.pace.warnings == [warnings[0].removeprefix("warning: ")]


def test_a_stride_given_by_hand_stays_and_is_warned_of_before_the_work() -> None:
    model, said_at = Timed(), list[tuple[float, str]]()
    clock = Clock(cost_of(16), began=0.0, now=lambda: model.now)
    result = score(
        model, TEXT, context=64, stride=8, batch_tokens=128, clock=clock,
        tell=lambda line: said_at.append((model.now, line)),
    )  # fmt: skip
    assert result.pace is not None
    assert result.pace.strides == [(1, 8)]
    ((now, warning),) = [(now, line) for now, line in said_at if line.startswith("warning: ")]
    assert now < 5
    assert f"eval.stride = 8 needs about {cost_of(8) + now:.0f} s of the {cost_of(16):.0f} s" in warning
    assert "stride 32 would end in time" in warning
    assert not paced(2 * cost_of(8), stride=8)[1]


def test_a_machine_that_slows_down_takes_a_coarser_stride_for_the_rest() -> None:
    budget_s = (cost_of(8) + 4) / 0.9
    half = 0.4 * budget_s
    result, warnings, ended_s = paced(budget_s, speed=lambda now: 1.0 if now < half else 0.4)
    assert result.pace is not None
    taken = [stride for _, stride in result.pace.strides]
    assert taken[0] == 8 and max(taken) > 8
    assert result.stride == max(taken)
    assert ended_s <= budget_s
    assert any("of its measured speed" in line for line in warnings)
    assert result.tokens == 2000  # the ledger holds every target once, or there is no score
    # The strides that it took are a plan, with which the score is repeated to the last bit.
    again = score(Timed(), TEXT, context=64, batch_tokens=128, plan=result.pace.strides)
    assert (again.ledger_sha256, again.stride) == (result.ledger_sha256, result.stride)
    assert [entry.tokens for entry in result.ledger][-1][1] == again.ledger[-1].tokens[1] == 2000


def test_a_short_slowness_costs_a_part_of_the_text_only() -> None:
    budget_s = (cost_of(8) + 4) / 0.9
    slow = range(int(0.2 * budget_s), int(0.3 * budget_s))
    result, _, ended_s = paced(budget_s, speed=lambda now: 0.3 if int(now) in slow else 1.0)
    assert result.pace is not None
    taken = [stride for _, stride in result.pace.strides]
    assert taken[0] == taken[-1] == 8 and max(taken) > 8
    assert ended_s <= budget_s


def test_a_text_of_one_window_has_nothing_to_choose() -> None:
    result, warnings, _ = paced(10.0, text=random_text(40))
    assert (result.tokens, result.stride, warnings) == (39, 64, [])


def test_auto_without_a_clock_is_an_error() -> None:
    with pytest.raises(InputError, match="needs a clock"):
        score(Timed(), TEXT, context=64, stride="auto")
    with pytest.raises(InputError, match="at most the context of 64"):
        score(Timed(), TEXT, context=64, stride=65)


def test_two_ranks_of_different_speed_take_the_same_stride_that_of_the_slower() -> None:
    barrier, lock, parts = threading.Barrier(2), threading.Lock(), list[Tensor]()

    def combine(value: Tensor) -> Tensor:
        with lock:
            parts.append(value.clone())
        barrier.wait(30)
        total = torch.stack(parts[-2:]).sum(0)
        barrier.wait(30)
        return total

    budget_s = (cost_of(8) / 2 / 0.5 + 6) / 0.9  # what stride 8 takes on two ranks of half the speed
    results: dict[int, Score] = {}

    def rank(number: int) -> None:
        slow = 0.5 if number else 1.0
        results[number] = paced(
            budget_s, speed=lambda now: slow, rank=number, world_size=2, combine=combine, finest=1
        )[0]  # fmt: skip

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results[0].pace is not None and results[1].pace is not None
    assert results[0].pace.strides == results[1].pace.strides == [(1, 8)]
    alone = score(Timed(), TEXT, context=64, stride=8, batch_tokens=128)
    assert results[0].ledger_sha256 == results[1].ledger_sha256 == alone.ledger_sha256
