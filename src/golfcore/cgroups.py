"""Read the limits that control groups put on this process: cgroups v1, v2 and both at once, nested groups included.

A group may use no more than each group above it, so the lowest limit on the way from the process's own group up to the
root of the mount counts. In a container that way is short: often the mount shows nothing above the container's group,
and /proc/self/cgroup may name a folder of the host that the mount does not show.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes of memory that a group may use, and bytes of them that are left."""

    limit: int
    left: int


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the processors' worth of time that this process may use, such as 1.5; None if unlimited.

    Args:
        root: the folder below which ``proc`` and the mounts are looked for.
    """
    found = []
    for version, folder in _groups(root, "cpu"):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):  # else "max", -1 or no such file
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory(root: Path = Path("/")) -> Memory | None:
    """Return the lowest limit on this process's memory and the least that is left below any; None if unlimited.

    Pages of files that the kernel can drop at any time count as left. A group of version 1 that has no limit shows a
    number near 2^63: the caller takes the smaller of the limit and the machine's memory.

    Args:
        root: the folder below which ``proc`` and the mounts are looked for.
    """
    found = []
    for version, folder in _groups(root, "memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_text(folder / name).strip() for name in names)
        if limit.isdigit() and used.isdigit():
            droppable = "inactive_file" if version == 2 else "total_inactive_file"
            files = re.search(rf"^{droppable} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
            in_use = int(used) - min(int(used), int(files[1]) if files else 0)
            found.append(Memory(int(limit), max(0, int(limit) - in_use)))
    if not found:
        return None
    return Memory(min(group.limit for group in found), min(group.left for group in found))


@functools.cache
def _groups(root: Path, controller: str) -> tuple[tuple[int, Path], ...]:
    """Return ``(version, folder)`` of this process's group and of each group above it that is shown here."""
    found = []
    own = _own_groups(root)
    for version, controllers, base, mount in _mounts(root):
        if version == 1 and controller not in controllers:
            continue
        path = own.get("" if version == 2 else controller, "/")
        below = PurePosixPath(path)
        inside = below.relative_to(base) if below.is_relative_to(base) else PurePosixPath()
        if ".." in inside.parts:  # the group lies outside of this process's namespace
            inside = PurePosixPath()
        top = root / mount.lstrip("/")
        folders = [top / part for part in (inside, *inside.parents)] if inside.parts else [top]
        found += [(version, folder) for folder in folders if folder.is_dir()]
    return tuple(found)


def _own_groups(root: Path) -> dict[str, str]:
    """Return the path of this process's group for each controller of version 1, and under "" for version 2."""
    found: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts(root: Path) -> Iterator[tuple[int, list[str], str, str]]:
    """Yield version, controllers, shown group and mount point of every mounted hierarchy of groups."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, dash, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if dash and len(fields) >= 5 and kinds[0] in ("cgroup", "cgroup2"):
            version = 2 if kinds[0] == "cgroup2" else 1
            yield version, kinds[-1].split(","), _plain(fields[3]), _plain(fields[4])


def _plain(field: str) -> str:
    """Return a field of mountinfo without the kernel's octal escapes of blanks and the like."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
