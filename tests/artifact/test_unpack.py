"""inspect, verify, diff, unpack and pack: the numbers add up, what is unpacked is the container, an error is a line."""

import json
import math
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import container_cases as cases
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from golfcore.artifact import folder
from golfcore.artifact.inspect import order0_bits, summary
from golfcore.cli import app, main
from golfcore.container import Container, Tensor, encode, write
from golfcore.errors import FormatError, InputError, UsageError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.golf"
    write(path, cases.small_model(), cases.MANIFEST)
    return path


Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns what it printed, parsed with ``--json``."""

    def go(*arguments: object) -> Any:
        capsys.readouterr()
        app([str(argument) for argument in arguments], exit_on_error=False, result_action="return_value")
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in arguments else text

    return go


def test_order0_bits() -> None:
    assert order0_bits(np.arange(256, dtype=np.uint8)) == 8
    assert order0_bits(np.array([-1, 1] * 8, np.int8)) == 1
    assert order0_bits(np.array([1, 1, 1, 3], np.int8)) == pytest.approx(2 - 0.75 * math.log2(3))
    assert order0_bits(np.arange(256, dtype=np.uint16)) == 8  # the upper byte is always 0
    assert order0_bits(np.zeros((0, 3), np.float32)) == 0
    assert order0_bits(np.float32([2.5])) == 0


def test_summary_adds_up(model: Path) -> None:
    found = summary(model, cap=2000)
    size = found["bytes"]
    assert size["file"] == model.stat().st_size == size["framing"] + size["payload"]
    assert size["framing"] == 24 + size["directory"] + 8
    assert size["free"] == 2000 - size["file"]
    for rows in (found["roles"], found["chunks"], found["tensors"]):
        assert sum(row["coded"] for row in rows) == pytest.approx(size["payload"], abs=2)
        assert sum(row["raw"] for row in rows) == sum(t.array.nbytes for t in cases.small_model())
    assert [row["role"] for row in found["roles"]] == ["matrix", "scale", "code"]
    first = found["tensors"][0]
    assert (first["name"], first["shape"], first["kind"], first["bits"]) == ("blocks.0.q", [16, 32], "quantised", 6)
    assert not first["alone"] and found["tensors"][-1]["alone"]
    assert found["manifest"] == cases.MANIFEST


def test_summary_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "empty.golf", [Tensor("e", "r", np.zeros((0, 2), np.float16))], {})
    found = summary(tmp_path / "empty.golf")
    assert found["tensors"][0]["bits_per_weight"] == found["chunks"][0]["bits_per_weight"] == 0
    assert "free" not in found["bytes"]


def test_inspect(model: Path, run: Run) -> None:
    assert run("inspect", model, "--cap", 1500, "--json") == json.loads(json.dumps(summary(model, 1500)))
    text = run("inspect", model, "--cap", 1500)
    assert f"{1500 - model.stat().st_size:,} free below the cap of 1,500" in text
    for t in cases.small_model():
        assert t.name in text
    assert max(map(len, text.splitlines()[1:-1])) <= 80  # what a pipe gets; the first line is the file's path
    assert f"{model.stat().st_size - 100} above the cap of 100" in run("inspect", model, "--cap", 100)
    with pytest.raises(UsageError):
        run("inspect", model, "--json", "--markdown")


def test_markdown_tables_are_whole(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "m.golf"
    write(path, [Tensor("a|b [red]", "r", np.zeros((2, 3), np.int8))], {})
    tables = run("inspect", path, "--markdown").strip().split("\n\n")
    assert len(tables) == 3
    for table in tables[1:]:
        lines = table.replace("\\|", "").splitlines()
        assert len({line.count("|") for line in lines}) == 1
    assert "a\\|b [red]" in tables[2] and "2x3" in tables[2]


def test_nothing_in_a_file_steers_the_terminal(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "m.golf"
    write(path, [Tensor("[bold]t", "r", np.zeros(1, np.int8))], {"\x1b[2J": "\x1b[31m[red]\u202e"})
    text = run("inspect", path)
    assert "[bold]t" in text and "\\u001b[31m[red]\\u202e" in text
    assert "\x1b" not in text


def test_verify(model: Path, run: Run, tmp_path: Path) -> None:
    assert "ok" in run("verify", model)
    assert run("verify", model, "--json")["ok"] is True
    broken = tmp_path / "broken.golf"
    broken.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(FormatError, match="cut off"):
        run("verify", broken)


def test_a_failed_verify_prints_one_json_object(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.golf").write_bytes(model.read_bytes()[:-1])
    with pytest.raises(FormatError):
        app(["verify", str(tmp_path / "broken.golf"), "--json"], exit_on_error=False)
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and "cut off" in found["error"]


@pytest.mark.parametrize("case", cases.GOOD)
def test_unpack_and_pack_give_the_same_bytes(case: str, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "in.golf"
    stored = [t for t in cases.GOOD[case][0] if len(t.name.encode()) <= folder.MAX_FILE_NAME]
    write(path, stored, cases.GOOD[case][1])
    files = run("unpack", path, "-o", tmp_path / "out", "--json")["files"]
    assert sorted(files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files[-1] == "manifest.json" and len(files) == len(stored) + 1
    for t in stored:
        assert np.load(tmp_path / "out" / f"{t.name}.npy").tobytes() == t.array.tobytes()
    packed = run("pack", tmp_path / "out", "-o", tmp_path / "again.golf", "--json")
    assert (tmp_path / "again.golf").read_bytes() == path.read_bytes()
    assert packed["bytes"] == path.stat().st_size


@pytest.mark.parametrize("name", ["../t", "/t", "a/b", "a\\b", "c:t", ".t", "..", "x" * 201])
def test_names_that_are_paths_are_refused(name: str, tmp_path: Path) -> None:
    data = encode([Tensor("ok", "r", np.zeros(1, np.int8)), Tensor(name, "r", np.zeros(1, np.int8))], {})
    (tmp_path / "in").mkdir()
    with Container.from_bytes(data) as c, pytest.raises(FormatError, match="not a plain file name"):
        folder.unpack(c, tmp_path / "in" / "out")
    assert not list((tmp_path / "in").iterdir())


def test_unpack_keeps_what_is_there(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for target in (tmp_path / "full", model):
        with pytest.raises(InputError, match="exists and is not an empty folder"):
            run("unpack", model, "-o", target)
    (tmp_path / "empty").mkdir()
    run("unpack", model, "-o", tmp_path / "empty")
    assert (tmp_path / "empty" / "manifest.json").exists()


def test_a_failed_unpack_leaves_nothing(tmp_path: Path) -> None:
    data = cases.one(b"\0\x1f\x20\0", kind=0x86)
    with Container.from_bytes(data) as c, pytest.raises(FormatError, match="symbol 2"):
        folder.unpack(c, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_unpack_that_cannot_go_on_says_why_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Container.open(model) as c, pytest.raises(InputError, match=r"cannot write .*out: File too large"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, most[1]))
        try:
            folder.unpack(c, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "manifest.json").unlink(), "expected a folder made by unpack"),
        (lambda d: (d / "manifest.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "manifest.json").write_text("[" * 100_000), "is not JSON"),
        (lambda d: (d / "manifest.json").write_text("{}"), '"golfcore_unpacked": 1'),
        (lambda d: edit(d, lambda tree: tree.pop("tensors")), "expected a list 'tensors'"),
        (lambda d: edit(d, lambda tree: tree["tensors"][0].pop("role")), "tensor 0: expected an object with name"),
        (
            lambda d: edit(d, lambda tree: tree["tensors"][0].update(bits=True)),
            "tensor 0: expected an object with name",
        ),
        (lambda d: edit(d, lambda tree: tree["tensors"][0].update(name="../@code")), "tensor 0: .*plain file name"),
        (lambda d: (d / "@code.npy").unlink(), r"cannot read .*@code\.npy"),
        (lambda d: (d / "@code.npy").write_bytes(b"x" * 99), r"@code\.npy is not a \.npy file"),
        (lambda d: (d / "@code.npy").write_bytes(b""), r"@code\.npy is not a \.npy file"),
        (lambda d: np.save(d / "@code.npy", np.array([{}]), allow_pickle=True), r"@code\.npy is not a \.npy file"),
        (lambda d: np.save(d / "@code.npy", np.zeros(3)), "tensor '@code': array has dtype float64"),
    ],
)
def test_a_folder_that_is_not_one(model: Path, tmp_path: Path, run: Run, change: Any, message: str) -> None:
    run("unpack", model, "-o", tmp_path / "out")
    change(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        run("pack", tmp_path / "out", "-o", tmp_path / "new.golf")
    assert not (tmp_path / "new.golf").exists()


def edit(directory: Path, change: Callable[[Any], object]) -> None:
    path = directory / "manifest.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("case", cases.GOOD)
def test_safetensors_and_back_give_the_same_bytes(case: str, tmp_path: Path, run: Run) -> None:
    path, file = cases.GOLDEN / f"{case}.golf", tmp_path / "model.safetensors"
    assert run("unpack", path, "-o", file, "--to", "safetensors", "--json")["tensors"] == len(cases.GOOD[case][0])
    run("pack", file, "-o", tmp_path / "again.golf", "--from", "safetensors")
    write(tmp_path / "here.golf", *cases.GOOD[case])  # by this machine's zstd
    assert (tmp_path / "again.golf").read_bytes() == (tmp_path / "here.golf").read_bytes()
    if case == "small_model":
        assert (load_file(file)["blocks.0.q"].numpy() == cases.small_model()[0].array).all()


def test_safetensors_of_others(tmp_path: Path, run: Run) -> None:
    file, target = tmp_path / "other.safetensors", tmp_path / "m.golf"
    save_file({"w": torch.ones(3, 4, dtype=torch.bfloat16), "v": torch.arange(5)}, file)
    run("pack", file, "-o", target)
    with Container.open(target) as c:
        assert {t.name: (t.role, t.dtype, t.shape) for t in c.tensors.values()} == {
            "w": ("tensor", "bf16", (3, 4)),
            "v": ("tensor", "i64", (5,)),
        }
    save_file({"w": torch.ones(3, dtype=torch.float64)}, file)
    with pytest.raises(InputError, match="'w': array has dtype float64"):
        run("pack", file, "-o", target)
    save_file({"w": torch.ones(3)}, file, {"golfcore": '{"version": 1, "manifest": {}, "tensors": []}'})
    with pytest.raises(FormatError, match="names other tensors than the file holds"):
        run("pack", file, "-o", target)
    for text in ("{", "[]", '{"version": 2}', '{"version": 1, "manifest": {}, "tensors": [{"name": 1}]}'):
        save_file({"w": torch.ones(3)}, file, {"golfcore": text})
        with pytest.raises(FormatError, match="metadata"):
            run("pack", file, "-o", target)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FormatError, match="is not a safetensors file"):
        run("pack", file, "-o", target)
    with pytest.raises(InputError, match="cannot read"):
        run("pack", tmp_path / "none.safetensors", "-o", target)
    with pytest.raises(UsageError, match="--from folder"):
        run("pack", file, "-o", target, "--from", "folder")


def test_diff(model: Path, tmp_path: Path, run: Run) -> None:
    same = run("diff", model, model, "--json")
    assert same["equal"] and same["tensors"] == same["manifest"] == []
    stored = cases.small_model()
    changed = stored[0].array.copy()
    changed[3, 4] += 3
    stored[0] = replace(stored[0], array=changed)
    stored[1] = replace(stored[1], role="scales")
    stored[2] = replace(stored[2], array=stored[2].array.T)
    stored[4] = replace(stored[4], bits=7)
    stored[-1] = replace(stored[-1], name="new")
    nan = Tensor("nan", "r", np.float16([np.nan]))
    a, b = tmp_path / "a.golf", tmp_path / "b.golf"
    write(a, [*cases.small_model(), nan], cases.MANIFEST)
    write(b, [*stored, nan], {**cases.MANIFEST, "layers": 3, "nested": {"x": 1}})
    found = run("diff", a, b, "--json")
    assert not found["equal"]
    assert {row["name"]: row["change"] for row in found["tensors"]} == {
        "blocks.0.q": "values", "blocks.0.q.scale": "role scale -> scales", "blocks.0.mlp.up": "shape 24x32 -> 32x24",
        "blocks.1.q": "kind int6 -> int7", "@code": "only in A", "new": "only in B",
    }  # fmt: skip
    assert found["tensors"][0]["differing"] == 1 and found["tensors"][0]["max_abs"] == 3
    assert {row["key"] for row in found["manifest"]} == {"layers", "nested.x", "nested.ö"}
    assert found["bytes"] == {"a": a.stat().st_size, "b": b.stat().st_size}
    assert sum(row["a"] for row in found["roles"]) == found["bytes"]["a"]
    text = run("diff", a, b)
    assert "blocks.0.q: 1 of 512 values differ, by 3 at most" in text and "they differ" in text
    assert main(["diff", str(model), str(model)]) == 0
    assert main(["diff", str(a), str(b)]) == 1
