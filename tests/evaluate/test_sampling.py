"""Tokens drawn one by one: the window that slides, the draws, and characters that are cut by tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB, scrambled
from torch import Tensor

from golfcore.errors import InputError, RuleError, UsageError
from golfcore.evaluate.sampling import Characters, Draw, Sampling, next_tokens, prompt_ids
from golfcore.model.interface import LanguageModel
from golfcore.tokenizer import Tokenizer

BYTES = Tokenizer()


def greedy(logits_V: Tensor) -> int:
    return int(logits_V.argmax())


@torch.no_grad()
def by_hand(model: LanguageModel, ids: list[int], windows: list[int]) -> list[int]:
    """Greedy tokens, each from a full pass over so many tokens before it."""
    ids = list(ids)
    for window in windows:
        ids.append(greedy(model.last_logits(torch.tensor([ids[-window:]]), 1)[0, -1]))
    return ids[-len(windows) :]


def test_a_full_window_goes_on_from_its_last_half() -> None:
    model = scrambled(TINY).eval()
    ids = torch.randint(4, VOCAB, (5,), generator=torch.Generator().manual_seed(1)).tolist()
    draws = next_tokens(model, ids, context=8, draw=greedy)
    found = [next(draws) for _ in range(14)]
    assert found == by_hand(model, ids, [5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8])


@pytest.mark.parametrize(("context", "windows"), [(1, [1, 1, 1]), (2, [2, 1, 2, 1]), (3, [3, 1, 2, 3]), (20, [20, 10])])
def test_a_long_prompt_is_read_from_its_end(context: int, windows: list[int]) -> None:
    model = scrambled(TINY).eval()
    ids = torch.randint(4, VOCAB, (30,), generator=torch.Generator().manual_seed(2)).tolist()
    draws = next_tokens(model, ids, context=context, draw=greedy)
    assert [next(draws) for _ in windows] == by_hand(model, ids, windows)


LOGITS = torch.full((12,), -50.0)
LOGITS[4:8] = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()


def drawn(n: int, vocab_size: int = 12, **options: float) -> list[int]:
    draw = Draw(Sampling(**options), vocab_size)  # type: ignore[arg-type]
    return [draw(LOGITS) for _ in range(n)]


def test_draws_follow_the_distribution() -> None:
    shares = np.bincount(drawn(4000, temperature=1.0), minlength=12)[4:8] / 4000
    assert np.abs(shares - [0.4, 0.3, 0.2, 0.1]).max() < 0.04  # five standard deviations
    squares = np.array([16, 9, 4, 1]) / 30
    shares = np.bincount(drawn(4000, temperature=0.5), minlength=12)[4:8] / 4000
    assert np.abs(shares - squares).max() < 0.04


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.1, {4}), (0.39, {4}), (0.6, {4, 5}), (0.89, {4, 5, 6}), (1.0, {4, 5, 6, 7})]
)
def test_top_p_leaves_the_likeliest(top_p: float, kept: set[int]) -> None:
    assert set(drawn(400, temperature=1.0, top_p=top_p)) == kept


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 5e-324])
def test_no_temperature_takes_the_likeliest(temperature: float) -> None:
    assert set(drawn(20, temperature=temperature)) == {4}


def test_a_seed_repeats_its_draws() -> None:
    assert drawn(50, seed=3) == drawn(50, seed=3) != drawn(50, seed=4)


def test_ids_without_text_are_never_drawn() -> None:
    draw = Draw(Sampling(temperature=1.0), 8)
    likely = torch.zeros(12)
    likely[[Tokenizer.PAD, Tokenizer.UNK, 8, 9, 10, 11]] = 60.0  # the last four beyond the tokenizer's vocabulary
    assert {draw(likely) for _ in range(200)} == {1, 2, 4, 5, 6, 7}
    assert Draw(Sampling(temperature=0.0), 8)(likely) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_end_the_text(value: float) -> None:
    logits = LOGITS.clone()
    logits[5] = value
    for temperature in (0.0, 1.0):
        with pytest.raises(RuleError, match="no finite number"):
            Draw(Sampling(temperature=temperature), 12)(logits)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tokens", 0), ("tokens", 1.5), ("temperature", -0.1), ("temperature", float("nan")),
        ("temperature", float("inf")), ("top_p", 0.0), ("top_p", 1.01), ("top_p", float("nan")), ("seed", -1),
        ("seed", 2**70), ("context", 0),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"sample.{option}"):
        Sampling(**{option: value})  # type: ignore[arg-type]


def pieces(data: bytes, *tail: int) -> list[str]:
    characters = Characters(BYTES)
    return [*(characters.add(token) for token in (*map(int, BYTES.encode(data)), *tail)), characters.end()]


def test_a_character_is_told_when_it_is_complete() -> None:
    assert pieces("aß日😀".encode()) == ["a", "", "ß", "", "", "日", "", "", "", "😀", ""]


def test_bytes_that_are_no_utf8_become_one_sign() -> None:
    assert pieces(b"a\xffb") == ["a", "\ufffd", "b", ""]
    assert pieces(b"\xe6\x97") == ["", "", "\ufffd"]  # cut off by the end
    assert pieces(b"\xe6\x97", Tokenizer.BOS) == ["", "", "\ufffd\n", ""]  # and by the mark of the next document


def test_a_prompt_is_the_beginning_of_a_document() -> None:
    assert prompt_ids(BYTES, "aß") == prompt_ids(BYTES, "aß".encode()) == [1, 4 + 97, 4 + 0xC3, 4 + 0x9F]


@pytest.mark.parametrize(("prompt", "said"), [
    ("", "empty"), (b"", "empty"), ("a\udcff", "not UTF-8 from character or byte 1"), (b"ab\xff", "byte 2"),
])  # fmt: skip
def test_prompts_that_cannot_be_read_are_refused(prompt: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prompt_ids(BYTES, prompt)
