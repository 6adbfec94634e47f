"""Run the command line beside a wall clock that is set again and again: ``jumping_clock.py SEED WORDS...``.

Only ``time.time`` jumps, as on a machine whose clock is corrected; ``time.monotonic`` does not, by its contract.
"""

import random
import sys
import time

JUMPS = (-86_400.0, -3_600.0, -2.0, 2.0, 3_600.0, 86_400.0 * 400)


def main() -> int:
    rng, real, offset = random.Random(int(sys.argv.pop(1))), time.time, 0.0

    def jumping() -> float:
        nonlocal offset
        if rng.random() < 0.3:
            offset = rng.choice(JUMPS)
        return real() + offset

    time.time = jumping
    from golfcore.cli import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
