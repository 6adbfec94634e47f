"""``golfcore kernels``: which native operations there are, and whether they are right on this machine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from golfcore.cli import output

app = App(name="kernels", help="List and test the native operations.")


@app.command(name="list")
def list_(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Show each operation, what serves it here, its functions under torch.ops.golf, and its cases.

    Args:
        json: Print one JSON document instead of the table.
    """
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

    Exits with 1 where a result is off by more than twice what plain torch in the same dtype is off, or depends on the
    number of threads.

    Args:
        op: An operation; default: all.
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
        state = "[red]wrong[/]" if row["failures"] else "[green]ok[/]"
        table.add_row(row["op"], row["level"], str(row["checked"]), f"{row['worst']:.2f}", state)
    output.print_table(table)
    for row in rows:
        for failure in row["failures"]:
            output.out.print(f"{row['op']} {row['level']}: {failure}", markup=False)
    return int(failed)
