"""golfcore for other processors, built on this one: docs/guides/arm.md says what for.

    python tests/arm/cross.py driver           the C++ core and its checks for Linux on aarch64, run under qemu
    python tests/arm/cross.py test [ARGS]      the module, and pytest in a Python for aarch64 under qemu
    python tests/arm/cross.py macos            the module for macOS on Apple silicon, compiled and linked with zig

Everything lies in build/arm and is made once; what is missing on this machine is named. Only ``driver`` is quick.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build" / "arm"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
JOBS = int(os.environ.get("JOBS", "2"))

# As in CMakeLists.txt.
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-math-errno", "-fPIC",
         "-fvisibility=hidden", f"-I{ROOT / 'csrc'}"]  # fmt: skip
OF_FILE = {"neon.cpp": ["-march=armv8-a+crc"], "neonbf16.cpp": ["-march=armv8.2-a+bf16"]}
OF_FILE_ZIG = {"neonbf16.cpp": ["-mcpu=apple_m1+bf16"]}  # zig names processors instead
NOT_ARM = ("avx2.cpp", "avx512.cpp", "avx512bf16.cpp", "avx512amx.cpp")

# A torch that has a build without CUDA for aarch64, and what its own tests and ours need beside it.
DEBIAN, PYTHON = "bookworm", "3.11"
TORCH = "torch==2.9.1"
PACKAGES = [
    "numpy>=1.26", "zstandard>=0.22", "cyclopts>=4", "rich>=13", "jinja2>=3.1", "matplotlib>=3.8", "pytest>=8",
    "pytest-timeout>=2.3", "hypothesis>=6.100", "pyyaml", "filelock", "typing_extensions", "sympy", "networkx<3.7",
    "fsspec", "brotli", "safetensors", "sentencepiece",
]  # fmt: skip


class MissingError(Exception):
    """Something that this machine lacks, and how to get it."""


def need(program: str, package: str) -> str:
    if found := shutil.which(program):
        return found
    raise MissingError(f"{program} was not found (Debian: apt install {package})")


def run(*command: object, **keywords: object) -> None:
    subprocess.run([str(c) for c in command], check=True, **keywords)  # type: ignore[call-overload]


def core_sources(*, bindings: bool) -> list[Path]:
    """The files of the core that an Arm build compiles."""
    folders = sorted(p for p in (ROOT / "csrc").iterdir() if p.is_dir() and p.name not in ("simt", "device"))
    found = sorted((ROOT / "csrc").glob("*.cpp"))
    for folder in folders:
        if folder.name != "bindings" or bindings:
            found += sorted(folder.glob("*.cpp"))
    return [p for p in found if p.name not in NOT_ARM and not p.name.endswith("_kernels.cpp") and p.name != "simt.cpp"]


def compile_all(
    compiler: Sequence[str], sources: Sequence[Path], folder: Path, of_file: Mapping[str, list[str]] = OF_FILE
) -> list[Path]:
    """Objects of the sources; what is as old as its source and its headers stays."""
    folder.mkdir(parents=True, exist_ok=True)

    def is_current(target: Path, rule: Path) -> bool:
        if not (target.exists() and rule.exists()):
            return False
        read = rule.read_text().replace("\\\n", " ").partition(":")[2].split()
        return all(Path(p).exists() and Path(p).stat().st_mtime < target.stat().st_mtime for p in read)

    def one(source: Path) -> Path:
        target = folder / ("_".join(source.relative_to(ROOT).with_suffix(".o").parts))
        rule = target.with_suffix(".d")
        if not is_current(target, rule):
            made = target.with_suffix(".new")
            run(*compiler, *FLAGS, *of_file.get(source.name, []), "-MMD", "-MF", rule, "-c", source, "-o", made)
            made.replace(target)
        return target

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(one, sources))


def driver() -> Path:
    """The core and tests/arm/driver.cpp as one program for Linux on aarch64."""
    compiler = need(COMPILER, "g++-aarch64-linux-gnu")
    own = [ROOT / "csrc/simt/fiber.cpp", ROOT / "tests/arm/driver.cpp"]
    objects = compile_all([compiler, "-O2"], [*core_sources(bindings=False), *own], BUILD / "driver")
    program = BUILD / "driver" / "driver"
    if not program.exists() or program.stat().st_mtime < max(o.stat().st_mtime for o in objects):
        run(compiler, "-static", "-pthread", *objects, "-o", program)
    return program


def emulated(program: Path, *args: object, cpu: str = "max") -> subprocess.CompletedProcess[str]:
    emulator = need(EMULATOR, "qemu-user-static")
    return subprocess.run([emulator, "-cpu", cpu, program, *map(str, args)], capture_output=True, text=True)


def python() -> Path:
    """A Python for aarch64 with torch, as a script that runs it here."""
    emulator = need(EMULATOR, "qemu-user-static")
    root, site, script = BUILD / "root", BUILD / "site", BUILD / "python"
    if not (root / f"usr/bin/python{PYTHON}").exists():
        need("debootstrap", "debootstrap")
        shutil.rmtree(root, ignore_errors=True)
        include = f"python3,python{PYTHON},libpython{PYTHON}-dev,ca-certificates"
        run("debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", f"--include={include}", DEBIAN, root)
        for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
            run("dpkg-deb", "-x", package, root)
    if not (site / "torch").exists():
        platforms = ["manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"]
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade",
                   "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", "--target", site,
                   *(f"--platform={p}" for p in platforms)]  # fmt: skip
        run(*install, *PACKAGES)
        run(*install, "--no-deps", TORCH)  # pip would judge its dependencies by this machine's processor
    package = BUILD / "package"
    package.mkdir(exist_ok=True)
    script.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{package}:{site}:{ROOT / "tests"}" GOLF_ARM_PYTHON="{script}"\n'
        f'export XDG_CACHE_HOME="{BUILD / "cache"}"\n'
        f'exec "{emulator}" -cpu "${{GOLF_ARM_CPU:-max}}" -L "{root}" "{root}/usr/bin/python{PYTHON}" "$@"\n'
    )
    script.chmod(0o755)
    # What starts a child process must start the emulator too: this machine cannot run the program itself.
    (package / "sitecustomize.py").write_text('import os, sys\nsys.executable = os.environ["GOLF_ARM_PYTHON"]\n')
    return script


def module() -> None:
    """golfcore with its module for Linux on aarch64, by the project's own CMakeLists.txt, where python() finds it."""
    import pybind11

    compiler, core, include = need(COMPILER, "g++-aarch64-linux-gnu"), BUILD / "core", BUILD / "include"
    include.mkdir(parents=True, exist_ok=True)
    headers = include / "aarch64-linux-gnu"
    if not headers.is_symlink():  # alone: the compiler has the C library's own
        headers.symlink_to(BUILD / "root/usr/include/aarch64-linux-gnu")
    suffix = f".cpython-{PYTHON.replace('.', '')}-aarch64-linux-gnu.so"
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64", "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_CXX_FLAGS": f"-isystem {include}", "GOLF_CUDA": "OFF", "GOLF_SIMT": "OFF",
        "Python_EXECUTABLE": sys.executable, "Python_INCLUDE_DIR": BUILD / f"root/usr/include/python{PYTHON}",
        "PYTHON_MODULE_EXTENSION": suffix, "PYTHON_MODULE_DEBUG_POSTFIX": "", "pybind11_DIR": pybind11.get_cmake_dir(),
    }  # fmt: skip
    configure = [need("cmake", "cmake"), "-S", ROOT, "-B", core, "-G", "Ninja"]
    run(*configure, *(f"-D{name}={value}" for name, value in settings.items()), stdout=subprocess.DEVNULL)
    run("cmake", "--build", core, "--target", "_core", "-j", JOBS)
    package(core / f"_core{suffix}")


def package(library: Path) -> None:
    """The package's Python with this module, as one folder to import from."""
    folder = BUILD / "package" / "golfcore"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in (ROOT / "src" / "golfcore").iterdir():
        if entry.suffix != ".so" and entry.name != "__pycache__":
            (folder / entry.name).symlink_to(entry)
    shutil.copy(library, folder)
    metadata = folder.parent / "golfcore.dist-info"
    metadata.mkdir(exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: golfcore\nVersion: {project['version']}\n")


# The long form: every case of every operation at every level, and what else is compiled.
TESTS = ["tests/ops", "tests/tokenizer", "tests/quant/test_columns.py", "tests/container/test_checksum.py",
         "tests/container/test_entropy.py"]  # fmt: skip


def test(args: Sequence[str]) -> int:
    interpreter = python()
    module()
    options = ["-p", "no:cacheprovider", "--timeout", "3000"]
    done = subprocess.run([interpreter, "-m", "pytest", *options, *(args or TESTS)], cwd=ROOT)
    return done.returncode


def macos() -> Path:
    """The module for macOS on Apple silicon: each file compiled, linked, and read back."""
    import sysconfig

    import pybind11

    zig = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-macos.12.0"]
    if subprocess.run([*zig, "--version"], capture_output=True).returncode != 0:
        raise MissingError("zig was not found (pip install ziglang)")
    includes = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")]
    build = ['-DGOLF_COMMIT="macos"', '-DGOLF_CUDA_REASON=""', '-DGOLF_CUDA_IMAGES=""', "-DGOLF_CUDA=0"]
    objects = compile_all([*zig, "-O3", *includes, *build], core_sources(bindings=True), BUILD / "macos", OF_FILE_ZIG)
    library = BUILD / "macos" / "_core.cpython-311-darwin.so"
    # A library, where Apple's linker makes a bundle: zig 0.17 crashes on -bundle, and Python loads both.
    run(*zig, "-shared", "-Wl,-undefined,dynamic_lookup", *objects, "-o", library)
    check_macho(library)
    return library


def check_macho(path: Path) -> None:
    """Raises unless ``path`` is a 64-bit Mach-O module for Apple silicon that offers PyInit__core."""
    raw = path.read_bytes()
    magic, processor, _, kind = struct.unpack("<4I", raw[:16])
    expected = (0xFEEDFACF, 0x0100000C)
    if (magic, processor) != expected or kind not in (6, 8):  # MH_DYLIB, MH_BUNDLE
        raise ValueError(f"{path.name}: {magic:#x}, {processor:#x}, {kind}: no Mach-O module for arm64")
    if b"_PyInit__core" not in raw:
        raise ValueError(f"{path.name} has no PyInit__core")


def main(args: Sequence[str]) -> int:
    try:
        match args:
            case ["driver"]:
                done = emulated(driver(), "levels")
                print(done.stdout + done.stderr, end="")
                return done.returncode
            case ["test", *rest]:
                return test(rest)
            case ["macos"]:
                print(macos())
                return 0
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
