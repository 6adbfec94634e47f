"""The rows of ``golfcore doctor`` on processor, folders, memory and data."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from golfcore import machine
from golfcore.errors import InputError
from golfcore.paths import cache_dir

GB = 1_000_000_000
OK, SLOW, MISSING = "ok", "slow", "missing"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``required``: golfcore cannot run while this is missing."""

    name: str
    status: str
    detail: str
    fix: str = ""
    required: bool = False


def check_processor() -> Row:
    """Show the cores of this process, and what a container's quota leaves of them."""
    cores, quota = machine.cores(), machine.cpu_quota()
    text = f"{machine.cpu_model()}, {cores} {'core' if cores == 1 else 'cores'} for this process"
    if quota is None or quota >= cores:
        return Row("processor", OK, text)
    fix = "raise the container's limit on processors (docker run --cpus, Kubernetes limits.cpu, systemd CPUQuota)"
    threads = machine.fitting_threads()
    return Row("processor", SLOW, f"{text}, a quota of {quota:g}: {threads} of {cores} threads run", fix)


def check_home() -> Row:
    home = machine.home()
    if home is None:
        text = f"user {os.getuid()} has none: HOME is not set, and the user database does not know the user"
    elif writable(home):
        return Row("home", OK, str(home))
    else:
        text = f"{home} cannot be written"
    if "GOLFCORE_CACHE" in os.environ:
        return Row("home", OK, f"{text}; it is not needed, as GOLFCORE_CACHE is set")
    return Row("home", MISSING, text, "set GOLFCORE_CACHE to a folder that can be written")


def writable(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def check_disk() -> list[Row]:
    rows = []
    try:
        rows.append(disk_row("disk: here", Path.cwd()))
    except OSError:
        rows.append(Row("disk: here", MISSING, "the working folder was removed", "change to another folder"))
    try:
        rows.append(disk_row("disk: cache", cache_dir()))
    except InputError as error:
        what, _, fix = str(error).rpartition(": ")
        rows.append(Row("disk: cache", MISSING, what, fix))
    folder, asked = machine.temporary_folder(), os.environ.get("TMPDIR")
    if folder is None:
        fix = "free some space there, or set TMPDIR to a folder that can be written"
        rows.append(Row("disk: temp", MISSING, "no folder for temporary files can be written", fix))
    elif asked and Path(asked).absolute() != folder:
        rows.append(Row("disk: temp", SLOW, f"TMPDIR={asked} cannot be written; {folder} is used", "mend TMPDIR"))
    else:
        rows.append(disk_row("disk: temp", folder))
    return rows


def disk_row(name: str, path: Path) -> Row:
    existing = next(p for p in (path, *path.parents) if os.access(p, os.F_OK))
    free = shutil.disk_usage(existing).free
    text = f"{free / GB:.1f} GB free at {path}"
    if not writable(existing):
        what = "cannot be written" if existing.is_dir() else f"is in the place of a folder: {existing} is a file"
        return Row(name, MISSING, f"{text}, which {what}", "choose another folder (cache: GOLFCORE_CACHE)")
    if free < GB:
        return Row(name, MISSING, text, "free some space: a pocket run needs 1 GB, the contest's data 20 GB")
    if free < 20 * GB:
        return Row(name, OK, text, "enough for pocket runs; the contest's 80 shards need 20 GB")
    return Row(name, OK, text)


def check_memory() -> Row:
    found = machine.memory_bytes()
    if found is None:
        return Row("memory", OK, "this system does not say how much there is")
    total, available = found
    text = f"{available / 2**30:.1f} of {total / 2**30:.1f} GiB available"
    addresses = machine.soft_limit(resource.RLIMIT_AS)
    if addresses is not None:
        text += f"; ulimit -v allows {addresses / 2**30:.1f} GiB of addresses"
        return Row("memory", SLOW, text, "lift the limit (ulimit -v unlimited): torch reserves more than it uses")
    if available < 2 * 2**30:
        return Row("memory", SLOW, text, "close other programs, or lower train.micro_batch_tokens")
    return Row("memory", OK, text)


def check_data() -> Row:
    """Count the prepared folders in the cache: each holds a manifest.json, at most two levels down."""
    try:
        cache = cache_dir()
    except InputError as error:
        return Row("data", MISSING, machine.one_line(error), "see home above")
    found = {*cache.glob("*/manifest.json"), *cache.glob("*/*/manifest.json")}
    manifests = sorted(path for path in found if not path.parent.name.startswith("."))
    if not manifests:
        fix = "golfcore run pocket fetches and prepares the default text; data get fineweb the contest's"
        return Row("data", MISSING, f"nothing prepared in {cache}", fix)
    names = ", ".join(str(path.parent.relative_to(cache)) for path in manifests[:5])
    more = f" and {len(manifests) - 5} more" if len(manifests) > 5 else ""
    return Row("data", OK, f"{names}{more} in {cache}")


def check_leftovers() -> Row:
    """Show what killed processes left in the cache."""
    from golfcore.data.leftovers import leftovers

    found = [leftover for leftover in leftovers() if not leftover.used]
    if not found:
        return Row("leftovers", OK, f"no half-made folder or file in {cache_dir()}")
    size = sum(leftover.bytes for leftover in found) / 1e6
    text = f"{len(found)} half-made folders or files of killed processes in {cache_dir()}, {size:,.1f} MB"
    return Row("leftovers", SLOW, text, "golfcore data clean")
