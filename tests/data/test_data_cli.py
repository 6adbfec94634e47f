"""``golfcore data``: options, exit codes, and one JSON document where it is asked for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from golfcore.cli.data import app
from golfcore.data import default_text as default_text_module
from golfcore.data import hub as hub_module
from golfcore.data.cache import cached_prepare
from golfcore.data.hints import prepared_cache
from golfcore.data.prepare import load_prepared
from golfcore.errors import InputError, UsageError


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            app([str(a) for a in arguments])
        return int(left.value.code or 0), capsys.readouterr().out

    return call


def test_prepare_then_verify(run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = run("prepare", "--text", corpus, "-o", out, "--val-fraction", "0.2", "--vocab-size", "260")
    assert code == 0
    assert "train" in said
    assert "1 doubles dropped" in said
    manifest = load_prepared(out).manifest
    assert manifest.val_fraction == 0.2
    code, said = run("verify", out)
    assert code == 0
    assert said.count("ok") >= 9
    assert "FAIL" not in said


def test_json_is_the_only_output(run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = run("prepare", "--text", corpus, corpus, "--output", out, "--json")
    assert code == 0
    assert json.loads(said)["train"]["docs"] == load_prepared(out).manifest.train.docs
    code, said = run("verify", out, "--json")
    assert (code, json.loads(said)["ok"]) == (0, True)


def test_a_tokenizer_given_is_the_one_used(run, prepared, corpus: Path, tmp_path: Path, trained: list) -> None:
    code, _ = run("prepare", "--text", corpus, "--tokenizer", prepared[0] / "tokenizer.bpe", "-o", tmp_path / "out")
    assert code == 0
    assert trained == []
    assert load_prepared(tmp_path / "out").manifest.tokenizer_sha256 == prepared[1].tokenizer_sha256


def test_verify_fails_with_exit_code_1(run, prepared) -> None:
    (prepared[0] / "train_docs.sha").write_bytes(b"")
    code, said = run("verify", prepared[0])
    assert code == 1
    assert "FAIL" in said
    code, said = run("verify", prepared[0], "--json")
    assert code == 1
    assert [c["name"] for c in json.loads(said)["checks"] if not c["ok"]] == ["file hashes"]


def test_errors_are_raised_for_main_to_print(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        app(["prepare", "--text", str(tmp_path / "none.txt"), "-o", str(tmp_path / "out")])


def test_the_default_text_serves_where_none_is_given(run, corpus: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(default_text_module, "default_text", lambda tick: corpus)
    assert run("prepare", "-o", tmp_path / "out")[0] == 0
    assert run("get", "text") == (0, f"{corpus}\n")
    code, said = run("get", "text", "--json")
    assert (code, json.loads(said)) == (0, {"path": str(corpus), "bytes": corpus.stat().st_size})


def test_get_fineweb_passes_its_options_on(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(variant: str, root: Path, *, shards: int, tick: object) -> Path:
        calls.append((variant, root, shards))
        return root / "datasets"

    monkeypatch.setattr(hub_module, "fetch_fineweb", fetch)
    assert run("get", "fineweb", "--variant", "caseops", "--shards", "3", "-o", tmp_path) == (
        0,
        f"{tmp_path}/datasets\n",
    )
    code, said = run("get", "fineweb", "--json")
    assert (code, json.loads(said)) == (0, {"path": "data/datasets"})
    assert calls == [("caseops", tmp_path, 3), ("sp1024", Path("data"), 80)]


def test_prepare_into_the_cache_and_never_into_anothers_place(run, corpus: Path) -> None:
    code, said = run("prepare", "--text", corpus, "--json")
    folder = Path(json.loads(said)["path"])
    assert code == 0 and folder.parent == prepared_cache()
    assert cached_prepare([corpus]) == folder  # where a run finds it
    with pytest.raises(UsageError, match="leave out -o"):
        app(["prepare", "--text", str(corpus), "-o", str(prepared_cache() / "0123")])
    with pytest.raises(UsageError, match="name a folder with -o"):
        app(["prepare", "--text", str(corpus), "--tokenizer", str(folder / "tokenizer.bpe")])


def test_prepare_counts_what_it_skips(run, corpus: Path, tmp_path: Path) -> None:
    corpus.write_text(corpus.read_text() + '{"text": "\\ud800"}\n{"text": ""}\n')
    with pytest.raises(InputError, match="--skip-invalid"):
        app(["prepare", "--text", str(corpus), "-o", str(tmp_path / "out")])
    code, said = run("prepare", "--text", corpus, "-o", tmp_path / "out", "--skip-invalid", "--json")
    reading = json.loads(said)["reading"]
    assert (code, reading["documents"], reading["empty"], reading["invalid"]) == (0, 61, 1, 1)
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "out" / "manifest.json").read_text()))


def test_clean(run, corpus: Path) -> None:
    folder = prepared_cache() / ".0123456789abcdef.a1b2c3d4.tmp"
    folder.mkdir(parents=True)
    (folder / "shard").write_bytes(bytes(2_000_000))
    cached = cached_prepare([corpus])
    assert run("clean", "--dry-run")[1].splitlines() == [
        f"would remove: {folder} (2.0 MB)", "would remove 1 of 1 leftovers, 2.0 MB",
    ]  # fmt: skip
    assert json.loads(run("clean", "--json")[1]) == {
        "removed": True, "bytes": 2_000_000,
        "leftovers": [{"path": str(folder), "bytes": 2_000_000, "kept": ""}],
    }  # fmt: skip
    assert run("clean")[1] == "removed 0 of 0 leftovers, 0.0 MB\n"
    assert cached.is_dir() and not folder.exists()
    assert run("clean", "--all")[1].startswith(f"removed: {cached} ")
    assert not cached.exists()
