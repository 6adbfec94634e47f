"""The documents are true: links lead somewhere, code compiles and runs, commands parse, keys and files exist."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from cyclopts import CoercionError, MissingArgumentError
from test_layers import FLOORS

from golfcore.cli import app
from golfcore.config import build_recipe
from golfcore.model import family_configs
from golfcore.recipes.explain import all_keys

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
KEYS = {entry.key for entry in all_keys()}
FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
KEY = re.compile(r"(?<![\w./-])((?:track|data|optim|train|quant|eval|model)\.[a-z][a-z0-9_]*)(?![\w(/.])")
SOURCE = re.compile(r"(src|csrc|tests|bench|docs|examples|python|tools)/[\w./-]+")
SUFFIXES = ("golf", "safetensors", "py", "toml", "pt", "npy", "zst")  # `model.golf` is a file and no key


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, without their indent."""
    return [textwrap.dedent(body) for _, _, kind, body in FENCE.findall(page.read_text()) if kind.strip() == language]


def without_blocks(page: Path) -> str:
    return FENCE.sub("", page.read_text())


# --- links ------------------------------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} +(.+?) *#* *$", without_blocks(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", without_blocks(page))
    yield from re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", text)
    yield from re.findall(r"^\[[^\]]+\]: +(\S+)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert target.suffix == ".md" and anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_in_the_index() -> None:
    listed = re.findall(r"^(\w[\w/-]+)$", "\n".join(blocks(DOCS / "index.md", "{toctree}")), flags=re.MULTILINE)
    pages = [path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(page for page in pages if page != "index")
    outside = {"contributing": "../CONTRIBUTING.md", "changelog": "../CHANGELOG.md"}
    assert {outside.get(page, f"{page}.md") for page in listed} <= set(links(DOCS / "index.md"))


def test_questions_are_two_clicks_from_the_readme() -> None:
    assert "docs/index.md" in set(links(ROOT / "README.md"))
    assert "start/questions.md" in set(links(DOCS / "index.md"))
    questions = re.split(r"^## ", (DOCS / "start" / "questions.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(questions) >= 13
    assert all("](" in question for question in questions)


def test_paths_of_the_repository_exist() -> None:
    """But for those of ``scale``, the operation that docs/guides/simt.md invents."""
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for span in re.findall(r"`([^`\n]+)`", without_blocks(page)):
            if SOURCE.fullmatch(span) and "scale" not in span:
                assert (ROOT / span).exists(), f"{name_of(page)}: {span}"


# --- code -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        if not is_signature(block):
            ast.parse(block)


def is_signature(block: str) -> bool:
    """Whether a block is a call's signature, as in the generated page of the API."""
    return bool(re.match(r"[\w.]+\(", block)) and (block.rstrip().endswith(")") or ") -> " in block)


def runnable(page: Path) -> list[str]:
    """The blocks behind a comment ``<!-- runnable: A=B -->``, with A replaced by B: a smaller size for tests."""
    marked = re.compile(r"<!-- runnable(?:: ([^>]*?))? -->\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
    made = []
    for changes, block in marked.findall(page.read_text()):
        for change in changes.split():
            old, new = change.split("=")
            assert old in block, f"{page}: nothing to replace for {change}"
            block = block.replace(old, new)
        made.append(block)
    return made


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_runnable_python_runs(page: Path, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "my_text.txt").write_text("\n\n".join(text_file.read_text() for _ in range(3)))
    environment = os.environ | {"GOLFCORE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join(runnable(page))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each golfcore command in a page's console blocks, under torchrun too."""
    for block in blocks(page, "console"):
        for line in re.findall(r"^\$ (.*)$", block.replace("\\\n", " "), flags=re.MULTILINE):
            words = shlex.split(line.partition(" | ")[0], comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            if "golfcore" in words and words[0] in ("golfcore", "torchrun", "python"):
                yield words[words.index("golfcore") + 1 :]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=name_of)
def test_commands_parse(page: Path) -> None:
    for words in commands(page):
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_sentences_exist(page: Path) -> None:
    """A sentence may name a command without its arguments, or with a letter for a number."""
    for span in re.findall(r"`(golfcore [^`]+)`", without_blocks(page)):
        if any(sign in span for sign in "[|") or "..." in span or "COMMAND" in span:
            continue
        with contextlib.suppress(MissingArgumentError, CoercionError):
            app.parse_args(shlex.split(span)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "recipes.md"], ids=name_of)
def test_keys_exist(page: Path) -> None:
    spans = [*re.findall(r"`([^`\n]+)`", without_blocks(page)), *re.findall(r"--set\s+(\S+)", page.read_text())]
    for span in spans:
        for key in KEY.findall(span):
            assert key in KEYS or key.partition(".")[2] in SUFFIXES, f"{key} is no key of a recipe"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=name_of)
def test_recipes_build(page: Path) -> None:
    for block in blocks(page, "toml"):
        build_recipe(tomllib.loads(block), family_configs(), name_of(page))


# --- what is made from the code ---------------------------------------------------------------------------------------


def test_generated_pages_are_current() -> None:
    """A process of its own: other tests register families and operations."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run python docs/generate.py\n{done.stdout}{done.stderr}"


def test_the_picture_of_the_floors_is_the_tests_table() -> None:
    svg = "{http://www.w3.org/2000/svg}"
    picture = ElementTree.parse(DOCS / "layers.svg").getroot()
    for floor, names in enumerate(FLOORS):
        (group,) = picture.findall(f"{svg}g[@id='floor-{floor}']")
        shown = [text.text for text in group.iter(f"{svg}text") if text.get("class") == "name"]
        assert sorted(shown) == sorted(names), floor
    ElementTree.parse(DOCS / "flow.svg")


def test_forms_and_workflows_are_yaml() -> None:
    for path in [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff"]:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
    assert "golfcore doctor --json" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("sphinx", "myst_parser", "furo"))), reason="pip install '.[docs]'"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    loaded = re.findall(r"<(?:script|link|img)\b[^>]*?(?:src|href)=\"([^\"]+)\"", page)
    assert not [url for url in loaded if re.match(r"(https?:)?//", url)], "the site would need the network"
    assert (tmp_path / "site" / "searchindex.js").exists()
