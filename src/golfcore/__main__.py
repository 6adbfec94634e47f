"""Run the command line: ``python -m golfcore``."""

import sys

from golfcore.cli import main

sys.exit(main())
