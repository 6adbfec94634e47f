"""The segments of packed rows: as the model finds them, cut to length, in batches of the loader, padded in pieces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from golfcore.data.contracts import Documents
from golfcore.data.loader import TokenLoader
from golfcore.data.segments import BUCKET, bounds_of_rows, segment_bounds
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.model.gpt.parts import segment_bounds as of_the_model

BOS = 1


def rows(count: int, length: int, share: float, seed: int = 0) -> np.ndarray:
    """Tokens of which ``share`` start a document."""
    rng = np.random.default_rng(seed)
    ids_BT = rng.integers(4, 60_000, (count, length)).astype(np.uint16)
    ids_BT[rng.random((count, length)) < share] = BOS
    return ids_BT


@pytest.mark.parametrize("max_segment", [0, 1, 5, 7, 24, 1000])
@pytest.mark.parametrize(
    ("count", "length", "share"), [(1, 1, 0.0), (3, 24, 0.0), (3, 24, 0.2), (1, 500, 0.02), (2, 9, 1)]
)
def test_segments_are_those_that_the_model_finds(count: int, length: int, share: float, max_segment: int) -> None:
    ids_BT = rows(count, length, share)
    bounds = segment_bounds(ids_BT, Documents(BOS, max_segment))
    assert bounds.dtype == np.int32
    assert bounds.tolist() == of_the_model(torch.from_numpy(ids_BT.astype(np.int64)), BOS, max_segment).tolist()
    lengths = np.diff(bounds)
    assert lengths.min() > 0
    assert lengths.max() <= (max_segment or length)
    starts = set(bounds[:-1].tolist())
    assert starts >= {*range(0, ids_BT.size, length), *np.flatnonzero(ids_BT == BOS).tolist()}


def test_pieces_have_the_bounds_of_their_rows_and_few_lengths() -> None:
    ids_BT, documents = rows(6, 300, 0.1), Documents(BOS, 8)
    bounds = segment_bounds(ids_BT, documents)
    lengths = set()
    for first, last in [(0, 6), (0, 1), (1, 2), (2, 5), (5, 6)]:
        piece = bounds_of_rows(bounds, 300 * first, 300 * last)
        alone = segment_bounds(ids_BT[first:last], documents)
        assert piece.dtype == np.int32
        assert len(piece) % BUCKET == 0
        assert 0 <= len(piece) - len(alone) < BUCKET
        assert np.array_equal(piece[: len(alone)], alone)
        assert (piece[len(alone) :] == alone[-1]).all()
        lengths.add(len(piece))
    assert len(lengths) < 5
    full = np.arange(BUCKET, dtype=np.int32)  # needs none
    assert np.array_equal(bounds_of_rows(full, 0, BUCKET - 1), full)


@pytest.mark.parametrize("order", ["sequential", "shuffled"])
def test_batches_carry_them(tmp_path: Path, order: str) -> None:
    with ShardWriter(tmp_path, "train") as writer:
        writer.append(rows(1, 3000, 0.1).ravel())
    documents = Documents(BOS, 9)
    with TokenLoader(ShardSet.of_split(tmp_path, "train"), batch_tokens=192, seq_len=48, order=order) as loader:
        assert next(loader).bounds is None
        loader.reshape(192, 48, documents)
        for _ in range(5):
            batch = next(loader)
            assert batch.bounds is not None
            assert np.array_equal(batch.bounds, segment_bounds(batch.inputs_BT, documents))
