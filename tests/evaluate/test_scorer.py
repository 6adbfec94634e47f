"""The scorer: every token once, whatever windows, batches and ranks; and the ways a score could be wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY, VOCAB, random_text
from torch import Tensor

from golfcore.errors import InputError, RuleError
from golfcore.evaluate.booking import Ledger, plan_windows
from golfcore.evaluate.probes import future_flip
from golfcore.evaluate.scorer import ScoredText, score
from golfcore.model import get_family
from golfcore.model.interface import LanguageModel


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return model


@given(st.integers(2, 400), st.integers(1, 70), st.data())
def test_windows_score_each_target_once_with_full_context(n: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    times = np.zeros(n - 1, int)
    for window in plan_windows(n, context, stride):
        end = window.start + window.length
        assert window.start >= 0
        assert end <= n - 1
        assert window.length == min(context, n - 1)
        times[end - window.scored : end] += 1
    assert (times == 1).all()


def test_bits_per_byte_are_those_of_a_plain_loop(model: LanguageModel) -> None:
    text = random_text(150)
    result = score(model, text, context=32, stride=8)
    ids = torch.from_numpy(text.tokens.astype(np.int64))
    total = 0.0
    with torch.no_grad():
        for target in range(1, 150):
            # Token `target` is scored by the window that ends first at or after it.
            end = min(max(32, math.ceil((target - 32) / 8) * 8 + 32), 149)
            window = ids[max(0, end - 32) : end]
            logits, _ = model.logits(model.new_state(1), window[None])
            row = target - 1 - max(0, end - 32)
            total -= float(logits[0, row].log_softmax(-1)[ids[target]])
    assert result.val_bpb == pytest.approx(total / math.log(2) / text.total_bytes, abs=1e-6)
    assert result.val_loss == pytest.approx(total / 149, abs=1e-6)
    assert (result.tokens, result.bytes) == (149, text.total_bytes)


def test_batch_size_and_ranks_do_not_change_the_score(model: LanguageModel) -> None:
    text = random_text(300)
    reference = score(model, text, context=16, stride=5)
    for batch_tokens in (1, 40, 10_000):
        assert score(model, text, context=16, stride=5, batch_tokens=batch_tokens).val_bpb == pytest.approx(
            reference.val_bpb, abs=1e-6
        )
    assert score(model, text, context=16, stride=5).ledger_sha256 == reference.ledger_sha256

    for world_size in (2, 3):
        alone = score(model, text, context=16, stride=5, batch_tokens=80)
        assert _on_ranks(model, text, world_size) == alone.ledger_sha256  # to the last bit


def _on_ranks(model: LanguageModel, text: ScoredText, world_size: int) -> str:
    """Runs every rank in turn, twice: first to collect what each would send, then with the sums."""
    sent: list[list[Tensor]] = []

    def collect(value: Tensor) -> Tensor:
        sent[-1].append(value.clone())
        return value

    for rank in range(world_size):
        sent.append([])
        with pytest.raises(RuleError, match="never scored"):  # alone, a rank has not scored everything
            score(model, text, context=16, stride=5, batch_tokens=80, rank=rank, world_size=world_size, combine=collect)
    sums = iter([sum(parts) for parts in zip(*sent, strict=True)])
    return score(
        model, text, context=16, stride=5, batch_tokens=80, rank=0, world_size=world_size, combine=lambda _: next(sums)
    ).ledger_sha256


def test_a_uniform_model_costs_log2_v_bits_a_token() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    with torch.no_grad():
        model.get_parameter("embed.weight").zero_()
    text = random_text(100)
    assert score(model, text, context=16).val_loss == pytest.approx(math.log(VOCAB), abs=1e-6)


def test_a_token_scored_twice_or_never_is_an_error() -> None:
    ledger = Ledger(10)
    ledger.book(0, np.ones(6))
    with pytest.raises(RuleError, match="scored twice"):
        ledger.book(5, np.ones(2))
    with pytest.raises(RuleError, match="scored twice"):
        ledger.book(9, np.ones(2))  # past the end
    with pytest.raises(RuleError, match="4 tokens were never scored"):
        ledger.close()
    with pytest.raises(RuleError, match="probability 0"):
        ledger.book(6, np.array([np.inf]))


def test_byte_counts_that_do_not_fit_the_text_are_an_error() -> None:
    text = random_text(20)
    with pytest.raises(RuleError, match="the byte table counts"):
        ScoredText(text.tokens, text.token_bytes, text.total_bytes + 1, "")
    with pytest.raises(RuleError, match="19 byte counts for 20 tokens"):
        ScoredText(text.tokens, text.token_bytes[1:], text.total_bytes, "")
    with pytest.raises(InputError, match="nothing to score"):
        ScoredText(text.tokens[:1], text.token_bytes[:1], 0, "")


def test_ids_beyond_the_models_vocabulary_are_an_error(model: LanguageModel) -> None:
    tokens = np.array([1, 2, VOCAB], np.uint16)
    text = ScoredText(tokens, np.ones(3, int), 2, "")
    with pytest.raises((RuleError, IndexError)):
        score(model, text, context=2)


class Leaky(LanguageModel):
    """A known-bad model: each position's logits see the next token."""

    def __init__(self, inner: LanguageModel) -> None:
        super().__init__()
        self.inner = inner

    def loss(self, batch, context):  # type: ignore[no-untyped-def]
        return self.inner.loss(batch, context)

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return self.inner.new_state(rows)

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits, state = self.inner.logits(state, symbols_BT)
        following = torch.roll(symbols_BT, -1, 1)
        return logits + 5 * torch.nn.functional.one_hot(following, logits.size(-1)), state

    def parameter_roles(self):  # type: ignore[no-untyped-def]
        return self.inner.parameter_roles()


def test_the_future_flip_probe_passes_ours_and_catches_a_leak(model: LanguageModel) -> None:
    tokens = random_text(64).tokens
    assert future_flip(model, tokens, context=32) < 1e-5
    with pytest.raises(RuleError, match="not causal"):
        future_flip(Leaky(model), tokens, context=32)


class Table(LanguageModel):
    """A family that knows nothing of ``last_logits``: logits of the next token from the present one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(VOCAB, VOCAB)

    def loss(self, batch, context):  # type: ignore[no-untyped-def]
        raise AssertionError("scoring does not train")

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.table(symbols_BT), state

    def parameter_roles(self):  # type: ignore[no-untyped-def]
        raise AssertionError("scoring asks for no roles")


class LeakyWhereScored(Leaky):
    """Looks ahead only where fewer than all positions are asked for: never in training or in a whole window."""

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inner.logits(state, symbols_BT)

    def last_logits(self, symbols_BT: Tensor, last: int) -> Tensor:
        model = self.inner if last == symbols_BT.size(1) else Leaky(self.inner)
        return model.logits({}, symbols_BT)[0][:, -last:]


def test_the_probe_reads_the_path_that_is_scored() -> None:
    tokens, inner = random_text(64).tokens, Table()
    assert future_flip(LeakyWhereScored(inner), tokens, context=32) == 0
    with pytest.raises(RuleError, match="with the last 8 of 32 positions scored"):
        future_flip(LeakyWhereScored(inner), tokens, context=32, strides=(32, 8))
    assert future_flip(inner, tokens, context=32, strides=(32, 8, 1)) == 0


def naive(model: LanguageModel, text: ScoredText, context: int, stride: int) -> float:
    """Bits per byte of full logits of every window, one window at a time."""
    ids = torch.from_numpy(text.tokens.astype(np.int64))
    total, done = 0.0, 0
    with torch.no_grad():
        while done < len(ids) - 1:
            end = min(len(ids) - 1, done + (stride if done else context))
            window = ids[max(0, end - context) : end]
            logits, _ = model.logits(model.new_state(1), window[None])
            losses = -torch.log_softmax(logits[0].double(), -1)
            total += float(losses[torch.arange(done - end, 0), ids[done + 1 : end + 1]].sum())
            done = end
    return total / math.log(2) / text.total_bytes


@pytest.mark.parametrize(
    ("context", "stride", "tokens"),
    [(32, 32, 200), (32, 8, 200), (32, 8, 201), (32, 8, 33), (32, 8, 34), (32, 7, 150), (32, 1, 70), (32, 8, 20),
     (64, 16, 500), (1, 1, 10), (24, 23, 100)],
)  # fmt: skip
def test_the_score_is_that_of_full_logits(model: LanguageModel, context: int, stride: int, tokens: int) -> None:
    text = random_text(tokens)
    for family in (model, Table()):
        expected = naive(family, text, context, stride)
        for batch_tokens in (0, 100):
            found = score(family, text, context=context, stride=stride, batch_tokens=batch_tokens)
            assert found.val_bpb == pytest.approx(expected, abs=1e-6)


def test_a_model_that_gives_too_few_rows_is_an_error() -> None:
    class Short(Table):
        def last_logits(self, symbols_BT: Tensor, last: int) -> Tensor:
            return super().last_logits(symbols_BT, last)[:, 1:]

    with pytest.raises(RuleError, match="the model gave logits"):
        score(Short(), random_text(50), context=16, stride=4)
