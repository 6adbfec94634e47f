"""Run the command line: ``python -m golfcore``, and the program ``golfcore``."""

import os
import sys

# Python puts the working folder first on its path, so a file of the user's could stand in for a module of ours or of
# the standard library, and change a score. The process starts again without it.
if __name__ == "__main__" and not sys.flags.safe_path:
    os.execv(sys.executable, [sys.executable, "-P", *sys.orig_argv[1:]])

from golfcore.endings import run_to_end


def main() -> int:
    """Run the command line and return its exit code; a package that cannot be imported is one line, like any error."""

    def work() -> int:
        from golfcore.cli import main as command_line

        return command_line()

    return run_to_end("golfcore", work, debug="--debug" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
