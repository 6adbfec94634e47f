"""Batches: the same for every number of ranks, resumable to the batch, and each token a target once an epoch."""

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.errors import InputError, UsageError

TOKENS = 1003  # no multiple of anything below
BATCH, SEQ = 96, 8
ORDERS = ("sequential", "shuffled", "coprime", "random")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The ids 0..1002, in shards that no batch fits into evenly."""
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, "train", 150) as writer:
        writer.append(np.arange(TOKENS, dtype=np.uint16))
    return ShardSet.of_split(folder, "train")


def take(loader: TokenLoader, count: int) -> list[tuple[list, list]]:
    return [(x.tolist(), y.tolist()) for x, y, _ in islice(loader, count)]


def test_sequential_order_is_the_stream_with_one_token_shared(shards: ShardSet) -> None:
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ) as loader:
        for step, (x_BT, y_BT, bounds) in enumerate(islice(loader, 25)):
            at = (step * BATCH + np.arange(BATCH)) % TOKENS  # 25 batches wrap twice
            assert x_BT.dtype == y_BT.dtype == np.uint16
            assert bounds is None
            assert x_BT.shape == y_BT.shape == (BATCH // SEQ, SEQ)
            assert x_BT.ravel().tolist() == at.tolist()
            assert y_BT.ravel().tolist() == ((at + 1) % TOKENS).tolist()


@pytest.mark.parametrize("order", ["shuffled", "coprime"])
def test_an_order_sees_each_window_once_an_epoch_and_differs_between_epochs(shards: ShardSet, order: str) -> None:
    windows = TOKENS // SEQ
    rows = []
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order, seed=3) as loader:
        while len(rows) < 2 * windows:
            x_BT, y_BT, _ = next(loader)
            assert np.array_equal(y_BT, (x_BT + 1) % TOKENS)
            assert np.array_equal(np.diff(x_BT.astype(int)) % TOKENS, np.ones((BATCH // SEQ, SEQ - 1)))
            rows += x_BT.tolist()
    first, second = rows[:windows], rows[windows : 2 * windows]
    for epoch in (first, second):
        seen = np.concatenate(epoch)
        assert len(np.unique(seen)) == len(seen) == windows * SEQ
    assert first != sorted(first)
    assert sorted(first) != sorted(second)  # windows are cut at new places


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("world", [2, 3, 4])
def test_all_ranks_together_see_what_one_rank_sees(shards: ShardSet, order: str, world: int) -> None:
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order) as alone:
        whole = list(islice(alone, 23))
    parts = []
    for rank in range(world):
        with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, rank=rank, world=world, order=order) as loader:
            parts.append(list(islice(loader, 23)))
    for step, batch in enumerate(whole):
        for side in (0, 1):
            joined = np.concatenate([parts[rank][step][side] for rank in range(world)])
            assert np.array_equal(joined, batch[side])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", [0, 1, 7, 15])
def test_a_run_killed_in_an_epoch_goes_on_with_the_same_batches(shards: ShardSet, order: str, stop: int) -> None:
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order, prefetch=4) as loader:
        expected = take(loader, 40)
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order, prefetch=4) as killed:
        take(killed, stop)
        state = killed.state_dict()
    resumed = TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order, prefetch=1)
    with resumed:
        take(resumed, 3)  # what it had begun is given up
        resumed.load_state_dict(state)
        assert take(resumed, 40 - stop) == expected[stop:]


def test_random_windows_lie_anywhere(shards: ShardSet) -> None:
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order="random") as loader:
        rows = np.concatenate([x_BT for x_BT, _, _ in islice(loader, 200)])
    assert np.array_equal(np.diff(rows), np.ones((len(rows), SEQ - 1)))
    starts = np.unique(rows[:, 0])
    assert len(starts) > 700
    assert starts.max() <= TOKENS - SEQ - 1


@pytest.mark.parametrize("order", ORDERS)
def test_a_new_shape_counts_from_the_tokens_handed_out(shards: ShardSet, order: str) -> None:
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order, prefetch=4) as loader:
        take(loader, 3)
        loader.reshape(2 * BATCH, 2 * SEQ)
        state = loader.state_dict()
        x_BT, y_BT, _ = next(loader)
        assert x_BT.shape == (BATCH // SEQ, 2 * SEQ)
        assert np.array_equal(y_BT, (x_BT + 1) % TOKENS)
        if order == "sequential":
            assert x_BT[0, 0] == 3 * BATCH
        with pytest.raises(UsageError, match="batch_tokens = 90"):
            loader.reshape(90, SEQ)
    with TokenLoader(shards, batch_tokens=2 * BATCH, seq_len=2 * SEQ, order=order) as other:
        other.load_state_dict(state)
        assert np.array_equal(next(other)[0], x_BT)


def test_a_closed_loader_goes_on_where_it_was(shards: ShardSet) -> None:
    loader = TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, prefetch=3)
    first = take(loader, 5)
    loader.close()
    loader.close()
    first += take(loader, 5)
    loader.close()
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ) as other:
        assert take(other, 10) == first


def test_the_seed_chooses_the_order(shards: ShardSet) -> None:
    def batches(seed: int) -> list:
        with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order="shuffled", seed=seed) as loader:
            return take(loader, 3)

    assert batches(1) == batches(1)
    assert batches(1) != batches(2)


def test_a_state_of_another_stream_is_refused(shards: ShardSet) -> None:
    loader = TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order="shuffled", seed=1)
    state = loader.state_dict()
    for key, value in {"seed": 2, "order": "sequential", "tokens": 5}.items():
        with pytest.raises(InputError, match=key):
            loader.load_state_dict(state | {key: value})
    for position in (-1, 1.5, None):
        with pytest.raises(InputError, match="position"):
            loader.load_state_dict(state | {"position": position})


@pytest.mark.parametrize("order", ORDERS)
def test_a_look_at_the_next_batch_leaves_the_position(shards: ShardSet, order: str) -> None:
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, order=order, prefetch=1) as loader:
        take(loader, 2)
        state = loader.state_dict()
        seen = loader.peek()
        assert loader.peek() is seen
        assert loader.state_dict() == state
        assert next(loader) is seen
        ahead = loader.peek()
        loader.load_state_dict(state)  # what was looked at belongs to another position now
        again = next(loader)
        assert again is not ahead
        assert np.array_equal(again.inputs_BT, seen.inputs_BT)
        ahead = loader.peek()
        loader.reshape(2 * BATCH, SEQ)
        assert next(loader).inputs_BT.size == 2 * ahead.inputs_BT.size


def test_close_ends_the_thread_even_with_a_full_queue(shards: ShardSet) -> None:
    before = threading.active_count()
    loader = TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ, prefetch=2)
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_asked_for(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ShardSet, where: slice) -> np.ndarray:
        raise OSError("the disk went away")

    monkeypatch.setattr(ShardSet, "__getitem__", broken)
    with TokenLoader(shards, batch_tokens=BATCH, seq_len=SEQ) as loader:
        for ask in (loader.peek, loader.__next__, loader.peek):
            with pytest.raises(OSError, match="went away"):
                ask()


def test_fewer_tokens_than_one_batch(shards: ShardSet) -> None:
    TokenLoader(shards, batch_tokens=TOKENS - 1, seq_len=TOKENS - 1)
    with pytest.raises(InputError, match=r"1,003 tokens of data, expected at least one batch, 1,004"):
        TokenLoader(shards, batch_tokens=TOKENS, seq_len=TOKENS)


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_as_large_as_the_data(shards: ShardSet, order: str) -> None:
    with TokenLoader(shards, batch_tokens=1000, seq_len=10, order=order) as loader:
        for x_BT, y_BT, _ in islice(loader, 5):
            assert np.array_equal(y_BT, (x_BT + 1) % TOKENS)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_tokens": 90},
        {"world": 5},
        {"rank": 2, "world": 2},
        {"rank": -1},
        {"order": "backwards"},
        {"batch_tokens": 0},
        {"seq_len": 0},
        {"prefetch": 0},
    ],
)
def test_sizes_that_do_not_fit(shards: ShardSet, options: dict) -> None:
    with pytest.raises(UsageError):
        TokenLoader(shards, **{"batch_tokens": BATCH, "seq_len": SEQ, **options})


def test_the_package_does_not_import_torch() -> None:
    import subprocess
    import sys

    modules = "text default_text shards val_text manifest prepare verify loader segments hub"
    code = "import sys; " + "; ".join(f"import golfcore.data.{m}" for m in modules.split())
    code += "; import golfcore.cli.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shards_of_the_loader_may_be_one(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train") as writer:
        writer.append(np.arange(17, dtype=np.uint16))
    with TokenLoader(ShardSet.of_split(tmp_path, "train"), batch_tokens=16, seq_len=16) as loader:
        assert next(loader)[0].tolist() == [list(range(16))]
