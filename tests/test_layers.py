"""The architecture, checked: a package imports only from the layers below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "golfcore"

# CONTRIBUTING.md shows the same table.
LAYERS = {
    "cli": 5, "__main__": 5,
    "report": 4, "contest": 4, "bench": 4, "plan": 4, "sweep": 4,
    "train": 3, "quant": 3, "evaluate": 3, "recipes": 3,
    "model": 2, "optim": 2, "data": 2, "tokenizer": 2, "artifact.model_io": 2,
    "ops": 1,
    "errors": 0, "gpu": 0, "config": 0, "installed": 0, "paths": 0, "progress": 0, "environment": 0, "artifact": 0,
    "_core": 0,
}  # fmt: skip
MAY_TOUCH_CORE = ("ops", "tokenizer", "artifact", "environment", "installed", "cli.doctor")
MODULES = sorted(SRC.rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def layer(module: str) -> int | None:
    parts = module.split(".")
    return next((LAYERS[key] for n in (2, 1) if (key := ".".join(parts[:n])) in LAYERS), None)


def imports(path: Path) -> list[str]:
    """Every golfcore module that ``path`` imports, at any level, without the package's name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [node.module or ""] if node.module != "golfcore" else [f"golfcore.{a.name}" for a in node.names]
            if node.module and node.module.startswith("golfcore."):
                found += [f"{node.module}.{a.name}" for a in node.names]
    return [name.removeprefix("golfcore.") for name in found if name.startswith("golfcore.")]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_downwards(path: Path) -> None:
    own = module_name(path)
    own_layer = layer(own)
    if own_layer is None:
        assert own == "", f"{own} has no layer: add it to LAYERS here and in CONTRIBUTING.md"
        return
    for name in imports(path):
        target = layer(name)
        assert target is None or target <= own_layer, f"{own} (layer {own_layer}) imports {name} (layer {target})"
        if name.split(".")[0] == "_core":
            assert own.startswith(MAY_TOUCH_CORE), f"{own} touches _core; go through ops, tokenizer or artifact"


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, golfcore.cli, golfcore.config, golfcore.artifact; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
