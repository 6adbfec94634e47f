"""What is read out of machine code: from stored text, and from a kernel that is compiled here where nvcc is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from golfcore.errors import BuildError
from golfcore.ops import cubin
from golfcore.ops.cubin import Counts, Instruction, count, innermost_loops, loops, moved, parse_code, tensor_flops

# As cuobjdump -sass writes it, encodings cut off: a loop with a loop inside, one never-taken load, and padding.
CODE = """
Fatbin elf code:
================
arch = sm_90a
		Function : outer
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                                   /* 0x00000a00ff017b82 */
                                                                                           /* 0x000fe200078e00ff */
        /*0010*/               @P0 EXIT ;                                                  /* 0x000000000000094d */
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;               /* 0x0000000402027981 */
        /*0030*/              @!PT LDS RZ, [RZ] ;                                          /* 0x00000000fffff984 */
        /*0040*/                   LDGSTS.E.BYPASS.128 [R7], desc[UR4][R2.64], P2 ;        /* 0x0000000002077fae */
        /*0050*/                   LDSM.16.M88.4 R8, [R7] ;                                /* 0x000000000708783b */
        /*0060*/                   HMMA.16816.F32.BF16 R12, R8, R4, R12 ;                  /* 0x00000004080c723c */
        /*0070*/                   HMMA.16816.F32.BF16 R16, R8, R6, R16 ;                  /* 0x0000000608107 */
        /*0080*/              @!P1 BRA 0x40 ;                                              /* 0xfffffffc00b49947 */
        /*0090*/                   STL.64 [R1+0x8], R12 ;                                  /* 0x0000080c01007387 */
        /*00a0*/                   STG.E.64 desc[UR4][R2.64], R12 ;                        /* 0x0000000c02007986 */
        /*00b0*/                   BRA.U UP0, 0x20 ;                                       /* 0xfffffffd00000547 */
        /*00c0*/                   STG.E.128 desc[UR4][R2.64], R16 ;                       /* 0x0000001002007986 */
        /*00d0*/                   RED.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R9 ;  /* 0x00000009020079a6 */
        /*00e0*/                   EXIT ;                                                  /* 0x000000000000794d */
        /*00f0*/                   BRA 0xf0;                                               /* 0xfffffffc00fc7947 */
        /*0100*/                   NOP;                                                    /* 0x0000000000007918 */
		..........

		Function : straight
        /*0000*/                   LDG.E.U16 R2, desc[UR4][R2.64] ;                        /* 0x0000000402027981 */
        /*0010*/                   BRX R4 -0x20 ;                                          /* 0x0000000004007949 */
        /*0020*/                   EXIT ;                                                  /* 0x000000000000794d */
"""

RESOURCES = """
Resource usage:
 Common:
  GLOBAL:0
 Function outer:
  REG:168 STACK:24 SHARED:5120 LOCAL:0 CONSTANT[0]:388 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function straight:
  REG:14 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:380 TEXTURE:0 SURFACE:0 SAMPLER:0
"""

ELF = """
.nv.info
	<0x1>
	Attribute:	EIATTR_MIN_STACK_SIZE
	Format:	EIFMT_SVAL
	Value:	function: outer(0x8) min stack size: 0x0
.nv.info.outer
	<0x1>
	Attribute:	EIATTR_MAX_THREADS
	Format:	EIFMT_SVAL
	Value:	0x40 0x2 0x1
	<0x2>
	Attribute:	EIATTR_CRS_STACK_SIZE
.nv.info.straight
	<0x1>
	Attribute:	EIATTR_CRS_STACK_SIZE
"""


def test_instructions() -> None:
    code = parse_code(CODE)
    assert list(code) == ["outer", "straight"]
    assert len(code["outer"]) == 14  # neither the one that is never taken nor what follows the end
    assert code["outer"][2] == Instruction(0x20, "LDG.E.128.CONSTANT")
    assert [(i.name, i.target) for i in code["outer"] if i.opcode == "BRA"] == [("BRA", 0x40), ("BRA.U", 0x20)]
    assert [i.bytes for i in code["straight"]] == [2, 4, 4]


def test_counts() -> None:
    assert count(parse_code(CODE)["outer"]) == Counts(
        instructions=14, tensor=2, loads16=2, stores16=1, narrow=2, shared=2, local=1
    )


def test_loops() -> None:
    code = parse_code(CODE)["outer"]
    assert [(loop[0].address, loop[-1].address) for loop in loops(code)] == [(0x20, 0xB0), (0x40, 0x80)]
    (inner,) = innermost_loops(code)
    assert [i.opcode for i in inner] == ["LDGSTS", "LDSM", "HMMA", "HMMA", "BRA"]
    assert moved(inner) == 32 * 16
    assert tensor_flops(inner) == 2 * 2 * 16 * 8 * 16
    assert loops(parse_code(CODE)["straight"]) == []


def test_what_a_branch_leaves_out_is_rare_without_memory_and_products() -> None:
    names = ["BRA", "FSEL", "FSEL", "FADD", "BRA", "LDG.E.128", "BRA", "FMUL", "BRA", "MUFU.EX2", "STG.E.128", "BRA"]
    targets = {0: 3, 4: 6, 6: 9, 8: 10, 11: 0}  # a mask; an optional load; either of two ways; the loop
    code = [Instruction(16 * i, name, 16 * targets[i] if i in targets else -1) for i, name in enumerate(names)]
    assert [i.address // 16 for i in cubin.usual(code)] == [0, 3, 4, 5, 6, 9, 10, 11]
    assert cubin.usual(code[3:4]) == (code[3],)


def test_a_kernel() -> None:
    code = parse_code(CODE)
    kernel = cubin.Kernel("x", "outer", "sm_90a", 128, 168, 0, 24, code["outer"])
    assert len(kernel.loop) == 5
    assert kernel.local_in_loops == 1
    straight = cubin.Kernel("x", "straight", "sm_90a", 0, 14, 0, 0, code["straight"])
    assert (straight.loop, straight.local_in_loops) == ((), 0)


def test_resources_and_launch_bounds() -> None:
    assert cubin.parse_resources(RESOURCES)["outer"] == {
        "REG": 168, "STACK": 24, "SHARED": 5120, "LOCAL": 0, "CONSTANT": 388, "TEXTURE": 0, "SURFACE": 0, "SAMPLER": 0,
    }  # fmt: skip
    assert cubin.parse_threads(ELF) == {"outer": 128}


@pytest.mark.parametrize(
    ("mangled", "expected"),
    [
        ("_ZN4golf48_GLOBAL__N__2b217cd1_15_norm_kernels_cu_f40adca38backwardINS_4bf16ELi8ELi2EEEvNS_12NormBackwardE",
         ("norm", "backward<bf16, 8, 2>")),
        ("_ZN4golf40_GLOBAL__N__2b217cd1_8_probe_cu_f40adca38fill_f32EPflf", ("probe", "fill_f32")),
        ("_Z5otherPf", ("", "other")),
        ("plain_c", ("", "plain_c")),
    ],
)  # fmt: skip
def test_names(mangled: str, expected: tuple[str, str]) -> None:
    assert cubin.parse_name(mangled, cubin.demangle([mangled])) == expected


def test_missing_tools_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cubin.shutil, "which", lambda _: None)
    monkeypatch.setattr(cubin, "_folders", lambda: [tmp_path])
    with pytest.raises(BuildError, match=r"cuobjdump was not found.*pip install 'golfcore\[kernels\]'"):
        cubin.find_tools()
    for tool in cubin.TOOLS:
        (tmp_path / tool).write_text("")
    assert cubin.find_tools()["nvdisasm"] == tmp_path / "nvdisasm"


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubin._core, "has_cuda", False)
    cubin.built_kernels.cache_clear()
    with pytest.raises(BuildError, match=r"holds no kernels for GPUs.*GOLF_CUDA=ON"):
        cubin.built_kernels("sm_90a")


SOURCE = """
extern "C" __global__ void __launch_bounds__(96) copy(const uint4* x, uint4* y, int n) {
  for (int i = blockIdx.x * 96 + threadIdx.x; i < n; i += gridDim.x * 96) y[i] = __ldg(x + i);
}
extern "C" __global__ void spilled(const int* x, int* y, int n) {
  __shared__ int last[64];
  int many[64];
  for (int i = 0; i < 64; ++i) many[i] = x[i];
  for (int i = 0; i < n; ++i) many[many[i & 63] & 63] += i;
  last[threadIdx.x & 63] = many[n & 63];
  __syncthreads();
  y[threadIdx.x] = last[63 - (threadIdx.x & 63)];
}
"""


def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("nvcc is not here: nothing to compile a kernel with")
    try:
        cubin.find_tools()
    except BuildError as error:
        pytest.skip(str(error))
    return found


def test_a_kernel_compiled_here(tmp_path: Path) -> None:
    compiler, images = nvcc(), ("sm_80", "sm_90a")
    targets = (f"-gencode=arch={image.replace('sm', 'compute')},code={image}" for image in images)
    (tmp_path / "two.cu").write_text(SOURCE)
    made = subprocess.run(
        (compiler, *targets, "-c", "two.cu", "-o", "two.o"), cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if made.returncode and "nsupported" in made.stderr:
        pytest.skip(f"this nvcc knows not all of {images}")
    assert made.returncode == 0, made.stderr
    for image in images:
        copy, spilled = cubin.read_kernels(tmp_path / "two.o", image)
        assert (copy.name, copy.threads, copy.shared, copy.stack) == ("copy", 96, 0, 0)
        assert copy.counts.loads16 > 0
        assert copy.counts.stores16 == copy.counts.loads16
        assert copy.counts.narrow == copy.counts.local == 0
        assert copy.loop
        assert (spilled.name, spilled.threads, spilled.shared) == ("spilled", 0, 256)
        assert spilled.stack >= 256
        assert spilled.local_in_loops > 0
        assert spilled.counts.shared >= 2
    with pytest.raises(BuildError, match="holds no kernels for sm_75"):
        cubin.read_kernels(tmp_path / "two.o", "sm_75")


def test_no_kernel_of_this_build_keeps_registers_in_memory() -> None:
    try:
        kernels = [kernel for image in ("sm_80", "sm_90a") for kernel in cubin.built_kernels(image)]
    except BuildError as error:
        pytest.skip(str(error))
    assert {kernel.op for kernel in kernels} >= {"norm", "qk", "activation"}
    for kernel in kernels:
        what = f"{kernel.op} {kernel.name} {kernel.image}"
        assert kernel.stack == kernel.counts.local == 0, what
        assert kernel.threads or kernel.op == "probe", f"{what} has no launch bounds"
