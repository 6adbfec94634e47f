import sys

from golfcore.cli import main

sys.exit(main())
