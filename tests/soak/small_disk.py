"""Run golfcore on a small disk of its own: ``unshare -m small_disk.py FOLDER ROOM WORDS...``.

The folder's content moves onto a tmpfs with ROOM bytes free, which lies in its place as long as the command runs; what
is on it in the end is left in FOLDER.after, since the disk goes away with this process.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    folder, room, words = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    whole = folder.with_name(folder.name + ".before")
    os.chdir("/")
    folder.rename(whole)
    folder.mkdir()
    pages = sum(-(-path.stat().st_size // PAGE) + 1 for path in whole.rglob("*"))
    size = (pages + 8) * PAGE + room
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    shutil.copytree(whole, folder, dirs_exist_ok=True, symlinks=True)
    done = subprocess.run([sys.executable, "-P", "-m", "golfcore", *words], cwd=folder, check=False)
    shutil.copytree(folder, folder.with_name(folder.name + ".after"), symlinks=True)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


if __name__ == "__main__":
    sys.exit(main())
