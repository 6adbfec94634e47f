"""``golfcore kernels``: list the native operations and their machine code, and test their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from golfcore.cli import output

if TYPE_CHECKING:
    from rich.table import Table

    from golfcore.bench.resources import Resources

app = App(name="kernels", help="List and test the native operations.")


@app.command(name="list")
def list_(
    *, resources: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False
) -> int:
    """Show each operation, the code that serves it here, its functions under torch.ops.golf, and its cases.

    Args:
        resources: Show the kernels for GPUs instead: registers, memory, occupancy, and instructions by kind, from the
            machine code of this build. Needs a build with CUDA and NVIDIA's cuobjdump and nvdisasm, but no GPU.
        json: Print one JSON document instead of the table.
    """
    if resources:
        return _resources(json)
    from golfcore.ops.inventory import inventory

    rows = inventory()
    if json:
        output.print_json(rows)
        return 0
    table = output.plain_table("operation", "back end", "dtypes", "cases", "functions")
    for row in rows:
        dtypes, leaves = " ".join(row["dtypes"]), " ".join(row["leaves"])
        table.add_row(row["op"], row["backend"], dtypes, str(row["cases"]), leaves)
    output.print_table(table)
    if rows:
        output.out.print(f"\nlevels of this processor: {', '.join(rows[0]['levels'])}", markup=False)
    return 0


@app.command
def test(op: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Test operations against their reference in fp64, on every instruction set of this processor.

    The exit code is 1 if the error of a result is more than twice that of plain torch in the same dtype, or if a result
    depends on the number of threads.

    Args:
        op: Name of an operation; default: all.
        json: Print one JSON document instead of the table.
    """
    from golfcore.ops.inventory import examine, names

    chosen = names(op)
    rows = []
    with output.progress("testing") as tick:
        for i, name in enumerate(chosen):
            rows += examine(name)
            tick(i + 1, len(chosen), name)
    failed = any(row["failures"] for row in rows)
    if json:
        output.print_json({"ok": not failed, "rows": rows})
        return int(failed)
    table = output.plain_table(
        "operation", "level", "checked", "worst error / plain torch's", "state", right=("checked",)
    )
    for row in rows:
        state = output.styled(("wrong", "red") if row["failures"] else ("ok", "green"))
        table.add_row(row["op"], row["level"], str(row["checked"]), f"{row['worst']:.2f}", state)
    output.print_table(table)
    for row in rows:
        for failure in row["failures"]:
            output.out.print(f"{row['op']} {row['level']}: {failure}", markup=False)
    return int(failed)


def _resources(json: bool) -> int:
    from golfcore.bench.resources import document, resources

    rows = resources()
    if json:
        output.print_json(document(rows))
        return 0
    numbers = (
        "threads", "registers", "shared", "dynamic", "stack", "occupancy", "tensor", "16-byte loads", "stores",
        "narrower", "shared ", "local", "in loops",
    )  # fmt: skip
    for gpu in dict.fromkeys(row.gpu for row in rows):
        output.out.print(f"{gpu.name}, {gpu.image}", markup=False)
        table = output.plain_table("operation", "kernel", *numbers, right=numbers)
        for row in (row for row in rows if row.gpu == gpu):
            _add_resources(table, row)
        output.print_table(table)
        output.out.print("")
    _explain(rows)
    return 0


def _add_resources(table: Table, row: Resources) -> None:
    kernel, launch, fits, counts = row.kernel, row.launch, row.fits, row.kernel.counts
    table.add_row(
        kernel.op, kernel.name + (" *" if launch else ""),
        str(launch.block if launch else kernel.threads or "?"), str(kernel.registers), str(kernel.shared),
        str(launch.dynamic_shared) if launch else "?", str(kernel.stack),
        f"{fits.share:.0%} {fits.limit}" if fits else "?", str(counts.tensor), str(counts.loads16),
        str(counts.stores16), str(counts.narrow), str(counts.shared), str(counts.local), str(kernel.local_in_loops),
    )  # fmt: skip


def _explain(rows: Sequence[Resources]) -> None:
    spilled = [row for row in rows if row.kernel.stack or row.kernel.counts.local]
    output.out.print(
        "* launched by frontier_8xh100: its block and dynamic shared memory; elsewhere the launch bounds' block, and "
        "no dynamic shared memory. Registers and stack per thread, shared memory in bytes per block, instructions of "
        f"the machine code. {len(spilled) or 'None'} of {len(rows)} {'keep' if len(spilled) != 1 else 'keeps'} "
        "registers or arrays in local memory.", markup=False,
    )  # fmt: skip
    if not any(row.launch for row in rows):
        output.out.print(
            "Launches of kernels are not known here; run `make simt` in a checkout to see them.", markup=False
        )
