"""Write the commands that messages advise: quoted, so that they can be pasted into a shell where they were printed."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(*words: str | Path) -> str:
    """Return the line of a shell that runs ``golfcore`` with these words.

    A path that begins with a hyphen gets ``./`` before it, since it would be read as an option.
    """
    return shlex.join(["golfcore", *(_word(word) for word in words)])


def _word(word: str | Path) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text
