"""The contest's shards from the hub, against a stub of ``hf_hub_download`` that serves a folder."""

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from golfcore.data.hub import fetch_fineweb
from golfcore.data.shards import ShardSet, ShardWriter, header
from golfcore.errors import FormatError, InputError, UsageError

MANIFEST = {
    "datasets": [
        {"name": "fineweb10B_byte260", "tokenizer_name": "byte", "stats": {"files_train": 1, "files_val": 1}},
        {"name": "fineweb10B_sp1024", "tokenizer_name": "sp_1024", "stats": {"files_train": 3, "files_val": 2}},
        {
            "name": "fineweb10B_sp8192_lossless_caps_caseops_v1_reserved",
            "tokenizer_name": "sp_1024",
            "stats": {"files_train": 1, "files_val": 2},
        },
    ],
    "tokenizers": [
        {"name": "byte", "path": "tokenizers/byte.json"},
        {"name": "sp_1024", "model_path": "tokenizers/sp.model", "vocab_path": "tokenizers/sp.vocab"},
    ],
}


class StubHub:
    """Copies files of a folder where the hub would put them, and remembers what was asked for."""

    def __init__(self, served: Path) -> None:
        self.served = served
        self.asked: list[str] = []
        self.repos: set[str] = set()
        self.fail_at: str | None = None

    def __call__(self, *, repo_id: str, filename: str, repo_type: str, local_dir: Path) -> str:
        assert repo_type == "dataset"
        if self.fail_at and self.fail_at in filename:
            raise RuntimeError("connection lost\nwith a long tail")
        self.asked.append(filename.rsplit("/", 1)[-1])
        self.repos.add(repo_id)
        target = Path(local_dir) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.served / filename, target)
        return str(target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubHub:
    served = tmp_path / "served"
    root = served / "datasets"
    for dataset, parts in (("fineweb10B_sp1024", 3), (MANIFEST["datasets"][2]["name"], 1)):
        folder = root / "datasets" / dataset
        folder.mkdir(parents=True)
        for split, count in (("train", parts), ("val", 2), ("val_bytes", 2)):
            with ShardWriter(folder, split, 10) as writer:
                writer.append(np.arange(10 * count, dtype=np.uint16))
    (root / "tokenizers").mkdir()
    for name in ("sp.model", "sp.vocab", "byte.json"):
        (root / "tokenizers" / name).write_text(name)
    (root / "manifest.json").write_text(json.dumps(MANIFEST))
    stub = StubHub(served)
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return stub


def rewrite(hub: StubHub, change) -> None:
    tree = json.loads(json.dumps(MANIFEST))
    change(tree)
    (hub.served / "datasets" / "manifest.json").write_text(json.dumps(tree))


def test_the_manifest_comes_first_and_everything_lands_in_the_contests_layout(hub: StubHub, tmp_path: Path) -> None:
    data = tmp_path / "data"
    ticks: list[tuple[float, float, str]] = []
    folder = fetch_fineweb("sp1024", data, shards=2, tick=lambda *t: ticks.append(t))
    assert folder == data / "datasets" / "fineweb10B_sp1024"
    assert hub.asked == [
        "manifest.json", "sp.model", "sp.vocab", "fineweb_val_000000.bin", "fineweb_val_000001.bin",
        "fineweb_train_000000.bin", "fineweb_train_000001.bin",
    ]  # fmt: skip
    assert hub.repos == {"willdepueoai/parameter-golf"}
    assert sorted(str(p.relative_to(data)) for p in data.rglob("*") if p.is_file()) == sorted(
        ["manifest.json", "tokenizers/sp.model", "tokenizers/sp.vocab"]
        + [f"datasets/fineweb10B_sp1024/fineweb_{s}_{i:06d}.bin" for s in ("train", "val") for i in (0, 1)]
    )
    assert not (data / ".download").exists()
    assert len(ShardSet.of_split(folder, "train")) == 20
    assert ticks[-1] == (6, 6, "")


def test_more_shards_later_fetch_only_what_is_missing(hub: StubHub, tmp_path: Path) -> None:
    fetch_fineweb("sp1024", tmp_path / "data", shards=1)
    hub.asked.clear()
    fetch_fineweb("sp1024", tmp_path / "data", shards=3)
    assert hub.asked == ["manifest.json", "fineweb_train_000001.bin", "fineweb_train_000002.bin"]


def test_a_lost_connection_is_one_line_and_the_next_call_goes_on(hub: StubHub, tmp_path: Path) -> None:
    hub.fail_at = "train_000001"
    with pytest.raises(InputError, match="connection lost; run the same command again") as caught:
        fetch_fineweb("sp1024", tmp_path / "data", shards=3)
    assert "\n" not in str(caught.value)
    hub.fail_at = None
    hub.asked.clear()
    folder = fetch_fineweb("sp1024", tmp_path / "data", shards=3)
    assert hub.asked == ["manifest.json", "fineweb_train_000001.bin", "fineweb_train_000002.bin"]
    assert len(ShardSet.of_split(folder, "train")) == 30


def test_a_local_shard_of_the_wrong_size_is_fetched_again(hub: StubHub, tmp_path: Path) -> None:
    folder = fetch_fineweb("sp1024", tmp_path / "data", shards=1)
    path = folder / "fineweb_train_000000.bin"
    good = path.read_bytes()
    for bad in (b"", good[:-1]):
        path.write_bytes(bad)
        fetch_fineweb("sp1024", tmp_path / "data", shards=1)
        assert path.read_bytes() == good


@pytest.mark.parametrize("content", [b"", header(11) + bytes(20)])
def test_a_broken_shard_never_gets_its_name(hub: StubHub, tmp_path: Path, content: bytes) -> None:
    served = hub.served / "datasets" / "datasets" / "fineweb10B_sp1024" / "fineweb_train_000001.bin"
    good = served.read_bytes()
    served.write_bytes(content)
    with pytest.raises(FormatError, match="fineweb_train_000001"):
        fetch_fineweb("sp1024", tmp_path / "data", shards=2)
    folder = tmp_path / "data" / "datasets" / "fineweb10B_sp1024"
    assert not (folder / served.name).exists()
    assert not list((tmp_path / "data" / ".download").rglob(served.name))
    served.write_bytes(good)
    fetch_fineweb("sp1024", tmp_path / "data", shards=2)
    assert (folder / served.name).read_bytes() == good


def test_caseops_brings_its_byte_counts(hub: StubHub, tmp_path: Path) -> None:
    folder = fetch_fineweb("caseops", tmp_path / "data", shards=0)
    assert sorted(p.name for p in folder.iterdir()) == [
        "fineweb_val_000000.bin", "fineweb_val_000001.bin",
        "fineweb_val_bytes_000000.bin", "fineweb_val_bytes_000001.bin",
    ]  # fmt: skip
    assert hub.repos == {"romeerp/parameter-golf-caseops-v1"}


def test_wrong_usage(hub: StubHub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'sp1024'"):
        fetch_fineweb("sp1204", tmp_path)
    with pytest.raises(UsageError, match="has 3 training shards"):
        fetch_fineweb("sp1024", tmp_path, shards=4)
    with pytest.raises(UsageError, match="--shards -1"):
        fetch_fineweb("sp1024", tmp_path, shards=-1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.update(datasets=5), "no entry named 'fineweb10B_sp1024'"),
        (lambda t: t["datasets"].pop(1), "no entry named 'fineweb10B_sp1024'"),
        (lambda t: t["datasets"][1].update(tokenizer_name="gone"), "no entry named 'gone'"),
        (lambda t: t["datasets"][1].update(stats={"files_train": 3}), "files_val = None"),
        (lambda t: t["datasets"][1]["stats"].update(files_val=10**9), "files_val = 1000000000"),
        (lambda t: t["tokenizers"][1].update(model_path="tokenizers/../../evil"), "below tokenizers/"),
        (lambda t: t["tokenizers"][1].update(model_path="/etc/passwd"), "below tokenizers/"),
        (lambda t: t["tokenizers"].insert(0, {"name": "sp_1024"}), "names no file"),
    ],
)
def test_manifests_are_not_trusted(hub: StubHub, tmp_path: Path, change, expected: str) -> None:
    rewrite(hub, change)
    with pytest.raises(FormatError, match=expected):
        fetch_fineweb("sp1024", tmp_path / "data", shards=1)
    assert sorted(p.name for p in (tmp_path / "data").iterdir() if p.name[0] != ".") == ["manifest.json"]


@pytest.mark.parametrize("content", ["[]", "not json"])
def test_a_manifest_that_is_none(hub: StubHub, tmp_path: Path, content: str) -> None:
    (hub.served / "datasets" / "manifest.json").write_text(content)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        fetch_fineweb("sp1024", tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"golfcore\[hub\]"):
        fetch_fineweb("sp1024", tmp_path)
