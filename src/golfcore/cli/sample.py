"""``golfcore sample``: let a packed model go on with a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from golfcore.cli.options import Window
from golfcore.cli.output import print_json
from golfcore.printing import printable
from golfcore.ranges import FACTOR, SEED, SOME_SHARE, SOME_TOKENS


def sample(
    model: Path,
    *,
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    tokens: Annotated[int, Parameter(validator=SOME_TOKENS)] = 256,
    temperature: Annotated[float, Parameter(validator=FACTOR)] = 0.8,
    top_p: Annotated[float, Parameter(validator=SOME_SHARE)] = 1.0,
    seed: Annotated[int | None, Parameter(validator=SEED)] = None,
    stop: Annotated[bool, Parameter(negative="--no-stop")] = True,
    context: Window = 0,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Generate text: what a packed model writes after the prompt, as it writes it.

    Parameters
    ----------
    model
        A .golf file.
    prompt
        The beginning of a document; - reads it from standard input, up to its last byte.
    tokens
        The most tokens to draw.
    temperature
        Below 1 the likeliest tokens are preferred; 0 always takes the likeliest.
    top_p
        Share of the probability that the likeliest tokens have to reach; the others are never drawn.
    seed
        Seed of the draws, which repeats a text on one machine; default: another one with each call.
    stop
        Stop where the model ends the document; with --no-stop the next one follows in a line of its own.
    context
        Tokens that the model reads at most; when it holds that many, it goes on from the last half of them. Default: as
        the artifact says.
    json
        Print one JSON document at the end instead of the text on the way.
    """
    from golfcore.pipeline.model import generate

    given = sys.stdin.buffer.read() if prompt == "-" else prompt
    result = generate(
        model, given, tokens=tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop, context=context,
        tell=(lambda piece: None) if json else _show,
    )  # fmt: skip
    if json:
        print_json(result)
    else:
        _show("\n")


def _show(piece: str) -> None:
    """Write a piece of text at once; a terminal gets no character that steers it."""
    sys.stdout.write(printable(piece, keep="\n\t") if sys.stdout.isatty() else piece)
    sys.stdout.flush()
