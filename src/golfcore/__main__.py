"""Run the command line: ``python -m golfcore``."""

import os
import sys

# Python puts the working folder first on its path, so a file of the user's could stand in for a module of ours or of
# the standard library, and change a score. The process starts again without it.
if not sys.flags.safe_path:
    os.execv(sys.executable, [sys.executable, "-P", *sys.orig_argv[1:]])

from golfcore.cli import main

sys.exit(main())
