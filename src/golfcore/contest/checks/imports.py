"""Check the packages that an entry imports against what it lists, and against those that carry weights."""

from __future__ import annotations

import ast
import re
import sys

from golfcore.contest.checks.context import Context
from golfcore.contest.folder import REQUIREMENTS
from golfcore.contest.sources import Programs

# In the contest's image, or part of torch and its wheels.
PRESENT = frozenset(
    ["torch", "numpy", "sentencepiece", "triton", "tqdm", "setuptools", "pkg_resources", "huggingface_hub", "datasets"]
)
WEIGHTS = frozenset(
    [
        "transformers",
        "timm",
        "open_clip",
        "spacy",
        "gensim",
        "nltk",
        "fasttext",
        "kenlm",
        "sentence_transformers",
        "diffusers",
        "allennlp",
        "flair",
        "stanza",
        "torchvision",
        "torchtext",
        "vllm",
        "llama_cpp",
        "ctransformers",
        "gpt4all",
        "openai",
        "anthropic",
    ]
)
# Packages whose name to import is not the name to install.
INSTALLED_AS = {
    "flash_attn_interface": "flash_attn",
    "brotlicffi": "brotli",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv_python",
}


def check_imports(context: Context, programs: Programs) -> None:
    """Report imports that requirements.txt does not list, and packages that may carry weights or compute."""
    listed = _listed(context)
    local = {name.rpartition("/")[2].removesuffix(".py") for name in programs.files} | {
        name.split("/")[0] for name in context.entry.files if "/" in name
    }
    seen: set[str] = set()
    for source in programs.files.values():
        for node in ast.walk(source.tree):
            for name in _imported(node):
                if name in seen or name in sys.stdlib_module_names or name in local:
                    continue
                seen.add(name)
                package = INSTALLED_AS.get(name, name).lower().replace("-", "_")
                if name in WEIGHTS:
                    _flag(
                        context,
                        source.name,
                        node,
                        f"{name} may carry weights or compute of its own.",
                        "Say what of it is used.",
                    )
                elif package not in listed and name not in PRESENT:
                    _flag(
                        context,
                        source.name,
                        node,
                        f"{name} is imported and not in {REQUIREMENTS}.",
                        f"List it in {REQUIREMENTS}.",
                    )


def _listed(context: Context) -> set[str]:
    """Return the packages of requirements.txt, in the spelling of imports."""
    file = context.entry.named(REQUIREMENTS)
    lines = (file.text or "").split("\n")[:2_000] if file is not None else []
    names = [re.match(r"\s*([A-Za-z0-9][\w.-]{0,80})", line) for line in lines]
    return {match[1].lower().replace("-", "_").replace(".", "_") for match in names if match}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    return []


def _flag(context: Context, file: str, node: ast.AST, text: str, fix: str) -> None:
    context.flag("R3", "REVIEW", text, fix, file=file, line=getattr(node, "lineno", 0), kind="static", confidence=0.6)
