"""The compiler's result for each kernel: registers, memory, threads, and its instructions by kind.

Read from the machine code inside the compiled core, by NVIDIA's cuobjdump and nvdisasm. Nothing here needs a GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from golfcore import _core
from golfcore.errors import BuildError

TOOLS = ("cuobjdump", "nvdisasm")  # the first calls the second
REMEDY = "pip install 'golfcore[kernels]', or put the CUDA toolkit's bin on PATH"
# Address, predicate, name and operands of an instruction.
LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(@!?U?P\w+)?\s*([A-Z][A-Z0-9_.]*)([^;]*);")
RESERVED_SHARED = 1024  # from Hopper on, the system's share of a block's memory is counted where a kernel has any
TENSOR_FLOPS = {"HMMA.16816": 4096, "HMMA.1688": 2048}  # of a warp's product m16n8k16, m16n8k8


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of machine code: its address, and what it does (``LDG.E.128.CONSTANT``) without operands.

    ``target`` is where a branch goes, -1 for everything else and for branches to a register.
    """

    address: int
    name: str
    target: int = -1

    @property
    def opcode(self) -> str:
        return self.name.partition(".")[0]

    @property
    def bytes(self) -> int:
        """Of a memory access by one thread; 4 unless the name says otherwise."""
        for part in self.name.split(".")[1:]:
            if part in ("64", "128"):
                return int(part) // 8
            if part in ("U8", "S8"):
                return 1
            if part in ("U16", "S16"):
                return 2
        return 4


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions of one stretch of code, by kind.

    Attributes:
        instructions: all, without the padding after the end.
        tensor: products on the tensor cores.
        loads16, stores16: of 16 bytes from and to global memory; asynchronous copies count as loads.
        narrow: other accesses of global memory.
        shared: of shared memory, matrix loads and asynchronous copies included.
        local: of local memory: spilled registers and arrays that are no registers.
    """

    instructions: int = 0
    tensor: int = 0
    loads16: int = 0
    stores16: int = 0
    narrow: int = 0
    shared: int = 0
    local: int = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of one image.

    Attributes:
        op: the operation whose ``<op>_kernels.cu`` it is from.
        name: ``forward<golf::bf16, 8>``.
        image: ``sm_90a``.
        threads: of a block, at most; 0 where no launch bounds say so.
        registers: of a thread.
        shared: bytes a block, without what a launch adds.
        stack: bytes a thread, spilled registers included.
        code: its instructions in order.
    """

    op: str
    name: str
    image: str
    threads: int
    registers: int
    shared: int
    stack: int
    code: tuple[Instruction, ...]

    @property
    def counts(self) -> Counts:
        return count(self.code)

    @property
    def loop(self) -> tuple[Instruction, ...]:
        """The loop in which the work is done: of those without another inside the longest; empty without loops."""
        return max(innermost_loops(self.code), key=len, default=())

    @property
    def local_in_loops(self) -> int:
        """Accesses of local memory in any loop."""
        inside = {i for loop in loops(self.code) for i in loop}
        return count(tuple(inside)).local


def count(code: Sequence[Instruction]) -> Counts:
    """Count the instructions by kind."""
    kinds = dict.fromkeys(("tensor", "loads16", "stores16", "narrow", "shared", "local"), 0)
    for instruction in code:
        opcode, wide = instruction.opcode, instruction.bytes == 16
        if re.fullmatch(r"[A-Z]*MMA", opcode):
            kinds["tensor"] += 1
        elif opcode in ("LDG", "LD", "LDGSTS"):
            kinds["loads16" if wide else "narrow"] += 1
        elif opcode in ("STG", "ST"):
            kinds["stores16" if wide else "narrow"] += 1
        elif opcode in ("ATOMG", "RED", "REDG", "ATOM"):
            kinds["narrow"] += 1
        elif opcode in ("LDL", "STL"):
            kinds["local"] += 1
        if opcode in ("LDS", "STS", "LDSM", "STSM", "ATOMS", "LDGSTS"):
            kinds["shared"] += 1
    return Counts(instructions=len(code), **kinds)


def moved(code: Sequence[Instruction]) -> int:
    """Count the bytes of global memory that a warp reads and writes on one pass through ``code``, lane by lane."""
    return 32 * sum(i.bytes for i in code if i.opcode in ("LDG", "LD", "LDGSTS", "STG", "ST"))


def tensor_flops(code: Sequence[Instruction]) -> int:
    """Return the operations of a warp's tensor-core instructions on one pass through ``code``."""
    return sum(flops for i in code for prefix, flops in TENSOR_FLOPS.items() if i.name.startswith(prefix))


def loops(code: Sequence[Instruction]) -> list[tuple[Instruction, ...]]:
    """Find the stretches that a branch backwards repeats; the code's end, a branch to itself, is none."""
    found = [(i.target, i.address) for i in code if i.opcode == "BRA" and 0 <= i.target < i.address]
    return [tuple(i for i in code if start <= i.address <= end) for start, end in sorted(set(found))]


def usual(code: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """Return ``code`` without what branches leave out that has neither tensor-core products nor global memory in it.

    Such stretches are masks at edges, new maxima, slow paths of divisions: rarely run. Of two alternatives one stays.
    """
    places = {instruction.address: at for at, instruction in enumerate(code)}
    found, at = [], 0
    while at < len(code):
        found.append(code[at])
        after = places.get(code[at].target, 0) if code[at].opcode == "BRA" else 0
        skipped = code[at + 1 : after]
        rare = after > at and not moved(skipped) and not tensor_flops(skipped)
        at = after if rare else at + 1
    return tuple(found)


def innermost_loops(code: Sequence[Instruction]) -> list[tuple[Instruction, ...]]:
    """Those with no other one inside."""
    spans = [(loop[0].address, loop[-1].address, loop) for loop in loops(code) if loop]
    return [
        loop for start, end, loop in spans
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e, _ in spans)
    ]  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_code(text: str) -> dict[str, tuple[Instruction, ...]]:
    """Function -> instructions, from ``cuobjdump -sass``."""
    found: dict[str, list[Instruction]] = {}
    function = ""
    for line in text.splitlines():
        if (start := re.match(r"\s*Function : (\S+)", line)) is not None:
            function = start.group(1)
            found[function] = []
            continue
        match = LINE.match(line)
        if match is None or not function or match.group(2) == "@!PT":  # never taken
            continue
        address, name, operands = int(match.group(1), 16), match.group(3), match.group(4)
        target = re.search(r"\b0x([0-9a-f]+)\s*$", operands) if name.startswith("BRA") else None
        found[function].append(Instruction(address, name, int(target.group(1), 16) if target else -1))
    return {name: _without_padding(code) for name, code in found.items()}


def _without_padding(code: list[Instruction]) -> tuple[Instruction, ...]:
    while code and (code[-1].name == "NOP" or (code[-1].opcode == "BRA" and code[-1].target == code[-1].address)):
        code.pop()
    return tuple(code)


def parse_resources(text: str) -> dict[str, dict[str, int]]:
    """Function -> REG, STACK, SHARED, ..., from ``cuobjdump -res-usage``."""
    pairs = re.findall(r"Function (\S+):\s*\n\s*(REG:.*)", text)
    return {
        name: {key: int(value) for key, value in re.findall(r"([A-Z]+)(?:\[\d+\])?:(\d+)", line)}
        for name, line in pairs
    }


def parse_threads(text: str) -> dict[str, int]:
    """Function -> threads of its launch bounds, from ``cuobjdump -elf``."""
    found = {}
    for section in re.split(r"^\.nv\.info\.", text, flags=re.MULTILINE)[1:]:
        name = section.partition("\n")[0].strip()
        match = re.search(r"EIATTR_MAX_THREADS\s*\n.*\n\s*Value:\s*(0x\w+) (0x\w+) (0x\w+)", section)
        if match is not None:
            x, y, z = (int(part, 16) for part in match.groups())
            found[name] = x * y * z
    return found


def parse_name(mangled: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return (operation, ``forward<golf::bf16, 8>``); ``names`` is what each mangled name stands for.

    nvcc puts the source's name into that of the unnamed namespace: ``norm_kernels.cu``.
    """
    source = re.search(r"_GLOBAL__N__\w+?_\d+_([a-z0-9]+)(?:_kernels)?_cu_", mangled)
    full = names.get(mangled, mangled)
    plain = re.sub(r"\(anonymous namespace\)::|\b_GLOBAL__N__\w+::", "", full.partition("(golf")[0])
    plain = _until_parameters(plain).removeprefix("void ").replace("golf::", "")
    plain = re.sub(r"\((?:int|long|bool|unsigned int)\)", "", plain)
    return (source.group(1) if source else "", plain)


def _until_parameters(text: str) -> str:
    """``f<a, b>`` of ``f<a, b>(c)``: cut at the first bracket outside of the template's."""
    depth = 0
    for at, character in enumerate(text):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            return text[:at]
    return text


def demangle(names: Sequence[str]) -> dict[str, str]:
    """Return C++ names in words, by the C++ library that the core is linked with; those that it cannot read stay."""
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        function = library.__cxa_demangle
    except (OSError, AttributeError):
        return dict(zip(names, names, strict=True))
    function.restype = ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    found = {}
    for name in names:
        status = ctypes.c_int(0)
        pointer = function(name.encode(), None, None, ctypes.byref(status))
        found[name] = ctypes.string_at(pointer).decode() if pointer else name
        free(pointer)
    return found


# --- the tools --------------------------------------------------------------------------------------------------------


def find_tools() -> dict[str, Path]:
    """Find cuobjdump and nvdisasm: on PATH, in the CUDA toolkit, or in the packages of the extra ``kernels``.

    Raises:
        BuildError: one of them is missing.
    """
    found = {}
    for tool in TOOLS:
        path = shutil.which(tool) or next((str(f / tool) for f in _folders() if (f / tool).is_file()), None)
        if path is None:
            raise BuildError(f"{tool} was not found, which reads a kernel's machine code: {REMEDY}")
        found[tool] = Path(path)
    return found


def _folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(location).glob("cu*/bin"), reverse=True)
    yield from (Path(home) / "bin" for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home)


def read_kernels(binary: Path, image: str) -> list[Kernel]:
    """Read the kernels of ``binary`` (a shared library or an object) for ``image``, in the order of their names.

    Raises:
        BuildError: a tool is missing or fails, or there is no such image.
    """
    tools = find_tools()
    base = (str(tools["cuobjdump"]), "-arch", image)
    environment = os.environ | {"PATH": os.pathsep.join((str(tools["nvdisasm"].parent), os.environ.get("PATH", "")))}

    def ask(what: str) -> str:
        try:
            done = subprocess.run(
                (*base, what, str(binary)),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=True,
                timeout=600,
                env=environment,
            )
        except subprocess.CalledProcessError as error:
            said = " ".join((error.stderr or error.stdout).split())[-300:]
            raise BuildError(f"{' '.join(base)} {what} {binary} failed: {said}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{' '.join(base)} {what} {binary} failed: {error}") from error
        return done.stdout

    resources = parse_resources(ask("-res-usage"))
    if not resources:
        raise BuildError(f"{binary} holds no kernels for {image}; {_images()}")
    threads, code, names = parse_threads(ask("-elf")), parse_code(ask("-sass")), demangle(list(resources))
    kernels = [
        Kernel(
            *parse_name(mangled, names), image=image, threads=threads.get(mangled, 0), registers=found["REG"],
            shared=_own_shared(found["SHARED"], image), stack=found["STACK"], code=code.get(mangled, ()),
        )
        for mangled, found in resources.items()
    ]  # fmt: skip
    return sorted(kernels, key=lambda kernel: (kernel.op, kernel.name))


def _own_shared(total: int, image: str) -> int:
    hopper = int("".join(c for c in image if c.isdigit())) >= 90
    return max(0, total - RESERVED_SHARED) if hopper else total


def _images() -> str:
    return f"this build has {_core.cuda_images or 'none at all'}"


@cache
def built_kernels(image: str) -> tuple[Kernel, ...]:
    """Read the kernels of the compiled core for ``image``.

    Raises:
        BuildError: the core was built without CUDA, without that image, or a tool is missing.
    """
    if not _core.has_cuda:
        raise BuildError(
            f"this build of golfcore holds no kernels for GPUs ({_core.cuda_reason}): install it again with "
            "GOLF_CUDA=ON; nvcc is needed, a GPU is not"
        )
    return tuple(read_kernels(Path(_core.__file__), image))
