"""The architecture, checked: a package imports only from the layers below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SRC = REPOSITORY / "src" / "golfcore"

# CONTRIBUTING.md shows the same table, from the top.
FLOORS = (
    ("_core", "cgroups", "config", "container", "contest", "crash", "disk", "endings", "errors", "gpu_specs", "hints",
     "installed", "machine", "openmp", "paths", "printing", "processes", "progress", "ranges", "run_folder", "startup",
     "stats", "suggest"),
    ("ops",),
    ("artifact", "data", "model", "optim", "tokenizer"),
    ("evaluate", "quant", "ranks", "recipes", "training"),
    ("report",),
    ("pipeline",),
    ("api", "bench", "boxcheck", "export", "plan", "sweep"),
    ("__main__", "cli"),
)  # fmt: skip
LAYERS = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MAY_TOUCH_CORE = ("ops", "tokenizer", "container", "machine", "installed", "cli.doctor")
MODULES = sorted(SRC.rglob("*.py"))
SCRIPTS = sorted([*(REPOSITORY / "python").glob("*.py"), *(REPOSITORY / "bench").glob("*.py")])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def layer(module: str) -> int | None:
    return LAYERS.get(module.split(".")[0])


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
            assert own.startswith(MAY_TOUCH_CORE), f"{own} touches _core; go through ops, tokenizer or container"


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, golfcore.cli, golfcore.config, golfcore.container; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_use_the_package_and_not_its_command_line(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] == "cli"]


def modules_imported(path: Path, known: set[str]) -> set[str]:
    """Modules that ``path`` imports; of ``from package import module`` the module alone, since it asks no more."""
    names = set(imports(path)) & known
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("golfcore."):
            package = node.module.removeprefix("golfcore.")
            if all(f"{package}.{alias.name}" in known for alias in node.names):
                names.discard(package)
    return names - {module_name(path)}


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports within functions count: a circle is one whenever it is closed."""
    known = {module_name(path) for path in MODULES}
    graph = {module_name(path): modules_imported(path, known) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module in done:
            return
        for name in sorted(graph[module]):
            visit(name, (*way, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=str)
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 400, "split the file by what it is about"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_the_table_in_contributing_is_this_one() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    table = text[text.index("| layer | packages and modules |") : text.index("Only `ops`")]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:] if line.startswith("|")]
    shown: dict[str, int] = {}
    floor = -1
    for layer_, names in rows:
        floor = int(layer_) if layer_.strip() else floor
        shown |= {name.strip(" `"): floor for name in names.split(",")}
    assert shown == {name: floor for name, floor in LAYERS.items() if name != "__main__"}
