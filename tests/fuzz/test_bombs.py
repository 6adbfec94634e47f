"""Checkpoints and quantised.pt made by an enemy: nothing in them is called, and none takes much time or memory."""

import hashlib
import zipfile
from pathlib import Path

import pytest
import samples
import torch
from feeds import quantized
from guided import Parser, accepts

from golfcore.errors import FormatError
from golfcore.run_folder import CHECKPOINT, PREVIOUS_CHECKPOINT, QUANTIZED
from golfcore.training.checkpoint import SUM_MAGIC, load_checkpoint, load_newest, load_tensors, save_checkpoint

NAMES = sorted(samples.bombs("mark"))


def summed(content: bytes) -> bytes:
    return content + SUM_MAGIC + hashlib.sha256(content).digest()


def as_checkpoint(data: bytes, folder: Path) -> None:
    load_checkpoint(samples_file(folder / CHECKPOINT, summed(data)))


def as_tensors(data: bytes, folder: Path) -> None:
    load_tensors(samples_file(folder / QUANTIZED, data), 2)


def samples_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("read", [as_checkpoint, as_tensors])
@pytest.mark.parametrize("whole", [True, False], ids=["zip", "bare"])
@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_of_an_enemy(name: str, whole: bool, read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mark, inside = tmp_path / "mark", tmp_path / "inside"
    inside.mkdir()
    data = samples.bombs(str(mark))[name]
    assert not accepts(Parser(read, dict), samples.zipped(data) if whole else data, inside)
    assert not mark.exists()


def test_the_bombs_are_live(tmp_path: Path) -> None:
    """What the test above shows nothing without: unpickled as Python does, they go off."""
    import pickle

    for name in ("mkdir", "system", "eval", "instance", "numpy_object"):
        mark = tmp_path / name
        result = pickle.loads(samples.bombs(str(mark))[name])
        if hasattr(result, "close"):
            result.close()
        assert mark.exists(), name


@pytest.mark.parametrize("member", ["storage", "pickle"])
def test_a_zip_bomb(member: str, tmp_path: Path) -> None:
    """A fifth of a megabyte that unfolds to 200: refused before it unfolds."""
    big = bytes(200 << 20)
    data = samples.pickle_of(samples.checkpoint_state()) + (big if member == "pickle" else b"")
    content = samples.zipped(
        data, storages=1, compression=zipfile.ZIP_DEFLATED, storage=big if member == "storage" else bytes(64)
    )
    assert len(content) < 1 << 18
    with pytest.raises(FormatError, match="compressed"):
        load_checkpoint(samples_file(tmp_path / CHECKPOINT, summed(content)))


@pytest.mark.parametrize("cut", [0, 1, 30, 100, 0.5, -100, -41, -40, -1])
def test_a_torn_file(cut: float, tmp_path: Path) -> None:
    whole = samples.checkpoint()
    data = whole[: int(cut * len(whole)) if isinstance(cut, float) else cut]
    path = samples_file(tmp_path / CHECKPOINT, data)
    if cut in (-40, -1):
        assert (
            load_checkpoint(path)["step"] == 3
        )  # all but the checksum is there, and the zip file's own sums are right
        return
    with pytest.raises(FormatError):
        load_checkpoint(path)


def test_a_value_that_cannot_be_printed(tmp_path: Path) -> None:
    """Sixty lists, each with the one before twice: what stands for the version would fill any memory as text."""
    swollen: object = "x"
    for _ in range(60):
        swollen = [swollen, swollen]
    torch.save({"version": swollen}, tmp_path / CHECKPOINT)
    with pytest.raises(FormatError, match="without a version, expected version 3"):
        load_checkpoint(tmp_path / CHECKPOINT)


@pytest.mark.parametrize("version", [2, 4, -1, None, 3.0, True, "3", torch.tensor(3)])
def test_another_version(version: object, tmp_path: Path) -> None:
    torch.save({"version": version}, tmp_path / CHECKPOINT)
    with pytest.raises(FormatError, match="expected version 3"):
        load_checkpoint(tmp_path / CHECKPOINT)


def test_a_bomb_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    save_checkpoint(tmp_path, {"step": 2})
    mark = tmp_path / "mark"
    (tmp_path / CHECKPOINT).write_bytes(summed(samples.zipped(samples.bombs(str(mark))["system"])))
    saved, note = load_newest(tmp_path)
    assert saved["step"] == 1 and PREVIOUS_CHECKPOINT in note and not mark.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": None}, {"tensors": 7}, {"tensors": [7]}, {"tensors": [()]}, {"tensors": [("a",)]},
        {"tensors": [("a", "q", "no tensor", None, 0, 0, None, None)]},
        {"tensors": [("a", "q", torch.ones(2, dtype=torch.bfloat16), None, 0, 0, None, None)]},
        {"tensors": [("a", "q", torch.ones(2).half(), None, 6, 0, None, [()])]},
        {"tensors": [("a", "q", torch.ones(2).half(), None, torch.tensor(6), 0, None, None)]},
        {"tensors": [(b"a", "q", torch.ones(2).half(), None, 6, 0, None, None)]},
        {"tensors": [("a", "q", torch.ones(2).half().to_sparse(), None, 0, 0, None, None)]},
    ],
    ids=range(11),
)  # fmt: skip
def test_quantized_tensors_that_are_none(change: dict[str, object], tmp_path: Path) -> None:
    data = samples.torch_file({"version": 2, **change})
    assert not accepts(Parser(quantized, dict), b"\0" + data, tmp_path)
