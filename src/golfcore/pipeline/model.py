"""A packed model for the Python API: load it, and let it generate text."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golfcore.errors import FormatError, InputError
from golfcore.paths import user_path
from golfcore.ranges import SOME_WINDOW, WINDOW
from golfcore.tokenizer import Tokenizer

# torch takes 1.2 s, so each function imports what needs it.
if TYPE_CHECKING:
    from golfcore.model.interface import LanguageModel

LARGEST_DRAWN_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class Model:
    """A packed model, ready to be called.

    Attributes:
        module: the torch module; ``golfcore.model.interface.LanguageModel`` is its interface.
        tokenizer: the tokenizer in the file; None if the file has only a tokenizer's hash.
        manifest: facts that the file holds about recipe, evaluation and data.
    """

    module: LanguageModel
    tokenizer: Tokenizer | None
    manifest: Mapping[str, Any]


def load_model(artifact: Path | str, *, packed: bool = False) -> Model:
    """Load a packed model with its tokenizer.

    Args:
        artifact: a ``.golf`` file.
        packed: whether matrices stay in a few bits per weight, which is fast where single tokens are read, as for
            ``generate``; such a module cannot be trained. Otherwise its weights are fp32.

    Raises:
        InputError: no such file.
        FormatError: the file is damaged, or its model family is unknown.
    """
    from golfcore.artifact.model_io import load_model as read_model
    from golfcore.artifact.packed import load_packed

    loaded = (load_packed if packed else read_model)(user_path(artifact, "artifact"))
    tokenizer = Tokenizer.from_bytes(loaded.tokenizer) if loaded.tokenizer else None
    return Model(loaded.module, tokenizer, loaded.manifest)


def generate(
    model: Model | Path | str,
    prompt: str | bytes,
    *,
    tokens: int = 256,
    temperature: float = 0.8,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: bool = True,
    context: int = 0,
    tell: Callable[[str], None] = lambda piece: None,
) -> dict[str, Any]:
    """Let a packed model go on with a text.

    The model keeps what it needs of the tokens that it has read, up to ``context`` of them; then it drops all of it and
    reads the last half of them again. The same seed gives the same text on one machine with one number of threads.

    Args:
        model: a ``.golf`` file, or a model from ``load_model``, which several calls can share.
        prompt: the beginning of a document; bytes have to be UTF-8.
        tokens: the most tokens to draw.
        temperature: below 1 the likeliest tokens are preferred; 0 always takes the likeliest.
        top_p: share of the probability that the likeliest tokens have to reach; the others are never drawn.
        seed: seed of the draws; default: another one with each call.
        stop: whether to stop where the model ends the document; else the next one follows in a line of its own.
        context: tokens per window; 0: as the artifact says.
        tell: called with each piece of the text as soon as its characters are complete.

    Returns:
        ``text`` (what follows the prompt), ``ids`` of the drawn tokens, ``tokens`` (their number), ``prompt_tokens``,
        ``ended`` (``"mark"`` where the model ended the document, else ``"tokens"``), ``seed`` and ``seconds``.

    Raises:
        UsageError: a number out of range.
        InputError: no such file, a file without a tokenizer, or a prompt that is empty or not UTF-8.
        FormatError: the file is damaged, or its tokenizer is that of another model.
        RuleError: the model's logits are not finite.
    """
    from golfcore.evaluate.sampling import Sampling, generate_text, prompt_ids

    WINDOW.check("context", context)
    sampling = Sampling(
        tokens=tokens, temperature=temperature, top_p=top_p, stop=stop, context=context or 1,
        seed=secrets.randbelow(LARGEST_DRAWN_SEED) if seed is None else seed,
    )  # fmt: skip
    if not isinstance(model, Model):
        model = load_model(model, packed=True)
    if model.tokenizer is None:
        raise InputError(
            "the model's file holds only the hash of its tokenizer, so it can read no prompt: pack a run whose "
            "tokenizer golfcore trained"
        )
    _check_vocabulary(model.manifest, model.tokenizer)
    sampling = dataclasses.replace(sampling, context=context or _own_context(model.manifest))
    return generate_text(model.module, model.tokenizer, prompt_ids(model.tokenizer, prompt), sampling, tell)


def _check_vocabulary(manifest: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    rows = manifest["model"]["vocab_size"]
    if rows != tokenizer.vocab_size:
        raise FormatError(f"the model has {rows} tokens, the tokenizer in its file {tokenizer.vocab_size}")


def _own_context(manifest: Mapping[str, Any]) -> int:
    own = manifest.get("eval", {})
    context: Any = own.get("context", 1024) if isinstance(own, Mapping) else None
    SOME_WINDOW.check("the manifest's eval.context", context, FormatError)
    return int(context)
