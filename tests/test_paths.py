"""Paths are bytes, not words: taken as they stand, stored so that every stage finds them, and written in UTF-8."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import BYTES, NAMES, plain
from hypothesis import given
from hypothesis import strategies as st
from tiny import recipe

import golfcore
from golfcore.config import DataConfig, build_recipe, to_toml, to_tree
from golfcore.data.prepare import prepare
from golfcore.data.tokens import open_tokens, prepare_data
from golfcore.errors import GolfError, InputError, UsageError
from golfcore.model import family_configs
from golfcore.paths import MAX_NAME, atomic_write, cache_dir, folder_name, stored_path, user_path
from golfcore.pipeline.config import read_config, write_config
from golfcore.pipeline.start import Wish, _loaded, begin, check_run_id, claim_run_dir
from golfcore.printing import printable
from golfcore.recipes import load_recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GOLFCORE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_cache_is_where_the_variables_say(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == home / ".cache" / "golfcore"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache_dir() == home / "xdg" / "golfcore"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir() == home / ".cache" / "golfcore"
    monkeypatch.setenv("GOLFCORE_CACHE", "~/gc")
    assert cache_dir() == home / "gc"
    monkeypatch.setenv("GOLFCORE_CACHE", "")
    assert cache_dir() == home / ".cache" / "golfcore"


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_a_path_that_is_none_is_refused(text: str) -> None:
    for call in (
        lambda: user_path(text, "--data"),
        lambda: golfcore.score("m.golf", text=[text]),
        lambda: golfcore.score("m.golf", data=text),
        lambda: golfcore.train("pocket", text=[text]),
        lambda: golfcore.train("pocket", data=text),
        lambda: golfcore.train("pocket", runs=text),
        lambda: golfcore.train("pocket", resume=text),
        lambda: golfcore.pack(text),
        lambda: golfcore.load_model(text),
    ):
        with pytest.raises(UsageError, match="the path is empty" if not text else "no null character"):
            call()


@pytest.mark.parametrize("name", ["1.10", "007", "true", "1e3", "nan", "[1]", '"x"', "'y'", " z ", "a=b", "# c", "{}"])
def test_a_folder_of_any_name_is_that_folder(name: str, tmp_path: Path) -> None:
    """By every way on which a path comes in; only --set takes off the quotes of TOML, as its manual says."""
    for config in (
        _loaded("pocket", Wish("pocket", data=Path(name)), {}).config,
        load_recipe("pocket", environment={"DATA_PATH": name} if name[0] not in "\"'" else {}, data=Path(name)).config,
        load_recipe("pocket", environment={}, changes={"data.path": name}).config,
    ):
        assert config.data.path == name
    own = tmp_path / "own.toml"
    own.write_text(to_toml({"data": {"path": name}}), encoding="utf-8")
    assert load_recipe(str(own), environment={}).config.data.path == name
    if name[0] not in "\"'":
        for config in (
            load_recipe("pocket", environment={}, sets=[f"data.path={name}"]).config,
            load_recipe("pocket", environment={"DATA_PATH": name}).config,
        ):
            assert config.data.path == name


def test_data_of_the_command_line_wins() -> None:
    config = load_recipe("pocket", environment={"DATA_PATH": "b"}, sets=["data.path=c"], data=Path("d")).config
    assert config.data.path == "d"


def test_a_config_stores_absolute_paths(home: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given relative to the working folder, or to the home folder: later stages find them from anywhere."""
    prepare([text_file], home / "d1", vocab_size=260)
    monkeypatch.chdir(home)
    for path in ("d1", "~/d1", "./d1", "../" + home.name + "/d1"):
        start = begin(Wish("pocket", data=Path(path), runs=home / "runs"))
        assert Path(start.config.data.path).is_absolute()
        assert Path(start.config.data.path).samefile(home / "d1")
    assert open_tokens("~/d1").folder == home / "d1"
    recipe_file = home / "sub" / "own.toml"
    recipe_file.parent.mkdir()
    recipe_file.write_text('[data]\npath = "~/d1"\ntokenizer = "t.bpe"\n', encoding="utf-8")
    found = prepare_data(load_recipe(str(recipe_file), environment={}).config, ()).data
    assert (found.path, found.tokenizer) == (str(home / "d1"), str(home / "t.bpe"))  # from the working folder
    monkeypatch.setenv("GOLFCORE_CACHE", "cache")
    prepared = prepare_data(recipe(), [text_file]).data.path
    assert Path(prepared).parent == home / "cache" / "prepared"
    assert stored_path("", "data.tokenizer") == ""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_toml_keeps_every_text(text: str) -> None:
    tree = to_tree(recipe()) | {"name": text}
    tree["data"] = tree["data"] | {"path": text}
    again = tomllib.loads(to_toml(tree))
    assert again["name"] == text and again["data"]["path"] == text
    assert build_recipe(again, family_configs(), "x").data.path == text


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_run_keeps_every_name(name: str, tmp_path: Path) -> None:
    import dataclasses

    config = dataclasses.replace(recipe(), name=name, data=DataConfig(path=f"/x/{name}", vocab_size=260))
    run_dir = claim_run_dir(tmp_path / "runs", "", name)
    assert run_dir.parent == tmp_path / "runs" and run_dir.is_dir()
    write_config(run_dir, config)
    assert read_config(run_dir) == config
    assert list((tmp_path / "runs").iterdir()) == [run_dir]
    check_run_id(tmp_path, folder_name(name))


@pytest.mark.parametrize("name", BYTES, ids=ascii)
def test_names_that_are_no_text_are_refused_before_any_work(
    name: str, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (
        lambda: DataConfig(path=name),
        lambda: load_recipe("pocket", environment={"DATA_PATH": name}),
        lambda: load_recipe("pocket", environment={}, changes={"name": name}) and None,
        lambda: begin(Wish("pocket", data=tmp_path / name, runs=tmp_path / "runs")),
        lambda: begin(Wish("pocket", run_id=name, runs=tmp_path / "runs")),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        str(caught.value).encode()  # the message can be shown anywhere
    assert not (tmp_path / "runs").exists()
    # Text of such a name is read: nothing stores its name but the manifest, escaped.
    text = tmp_path / f"{name}.jsonl"
    text.write_bytes(text_file.read_bytes())
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    assert open_tokens(prepare_data(recipe(), [text]).data.path).prepared


@given(st.text(max_size=400))
def test_a_folders_name_is_plain(text: str) -> None:
    name = folder_name(text)
    assert name and name not in (".", "..") and "/" not in name and name.isprintable()
    assert len(name.encode()) <= MAX_NAME + 1
    assert folder_name(name) == name


@pytest.mark.parametrize("run_id", ["a/b", "..", ".", "a\nb", "a\0b", "x" * 300, "\udcff", " a", "esc\x1b"])
def test_a_run_id_is_a_plain_name(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a plain name") as caught:
        check_run_id(tmp_path, run_id)
    str(caught.value).encode()


def test_a_path_too_long_for_the_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path / ("x" * 300)):
        pass


@given(st.text())
def test_printable_text_is_one_line_of_utf8(text: str) -> None:
    line = printable(text)
    line.encode()
    assert len(line.splitlines()) <= 1 and "\x1b" not in line
    assert printable(line) == line


def test_text_files_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a", "w") as f:
        assert f.encoding == "utf-8"


# --- the rule, checked in the source ----------------------------------------------------------------------------------


TEXT = ("open", "read_text", "write_text", "fdopen", "NamedTemporaryFile", "TextIOWrapper")
BINARY = ("os", "Container", "zipfile", "outer", "inner", "TextIOWrapper")  # whose open() gives no text


def text_calls(path: Path) -> Iterator[tuple[str, set[str | None]]]:
    """Calls that read or write text, with their keywords."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        keywords = {keyword.arg for keyword in node.keywords}
        words = [
            word.value for word in [*node.args, *(k.value for k in node.keywords)] if isinstance(word, ast.Constant)
        ]
        binary = any(isinstance(word, str) and set(word) <= set("rwaxbt+") and "b" in word for word in words)
        opened = (
            name in TEXT
            and (owner or name == "open")
            and not binary
            and not (name == "open" and owner.split(".")[-1] in BINARY)
        )
        if opened or (owner == "subprocess" and "text" in keywords):
            yield f"{path}:{node.lineno}: {ast.unparse(node.func)}", keywords


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "python").glob("*.py")]),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_every_text_names_its_encoding(path: Path) -> None:
    assert [where for where, keywords in text_calls(path) if "encoding" not in keywords] == [], (
        'say encoding="utf-8": the locale must not decide'
    )


def test_the_rule_finds_a_call_without_an_encoding(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    for line in (
        "open(p)",
        "p.open()",
        "p.read_text()",
        "p.write_text(x)",
        "os.fdopen(1, 'w')",
        "subprocess.run(c, text=True)",
    ):
        source.write_text(line, encoding="utf-8")
        assert list(text_calls(source)), line
    for line in ("open(p, 'rb')", "p.open('wb')", "os.open(p, 1)", "subprocess.run(c)", "os.fdopen(1, 'wb')"):
        source.write_text(line, encoding="utf-8")
        assert not list(text_calls(source)), line


def test_errors_of_golfcore_show_any_path(tmp_path: Path) -> None:
    for name in (*map(plain, NAMES), *BYTES):
        with pytest.raises(GolfError) as caught:
            read_config(tmp_path / name)
        assert len(printable(caught.value).splitlines()) == 1
