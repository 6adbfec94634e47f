"""Decode a packed model and score a folder of tokens, as ``golfcore eval`` does."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from golfcore.artifact.weights import restore
from golfcore.container.plain_decoder import decode
from golfcore.data.shards import ShardSet
from golfcore.evaluate.booking import Booking, Ranks
from golfcore.export.runtime.config import section
from golfcore.export.runtime.ngram import NgramMixture
from golfcore.export.runtime.ranks import World
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.model import GPT
from golfcore.progress import silent
from golfcore.tokenizer.sp_table import SentencePieceTable

Array = npt.NDArray[Any]


class Tokens(NamedTuple):
    """A folder of shards, and the tokenizer of their ids: the content of a ``.bpe`` file, or the path of a model."""

    folder: Path
    bpe: bytes
    sentencepiece: str

    def shards(self, split: str) -> ShardSet:
        """Return the shards of a split."""
        return ShardSet.of_split(self.folder, split)

    def bytes_of(self, ids: Array) -> Array:
        """Return the bytes of text of each of ``ids[1:]``."""
        if not self.bpe:
            return SentencePieceTable.load(self.sentencepiece).count_bytes(ids)
        lengths = [0] * 4 + [1] * 256
        for left, right in struct.iter_unpack("<HH", self.bpe[16:-4]):
            lengths.append(lengths[left] + lengths[right])
        return np.array(lengths)[ids[1:]]

    def sha256(self) -> str:
        """Return the hash of the tokenizer's file."""
        return hashlib.sha256(self.bpe or Path(self.sentencepiece).read_bytes()).hexdigest()


def tokens_of(recipe: Any, bpe: bytes = b"") -> Tokens:
    """Return the tokens that ``DATA_PATH`` and ``TOKENIZER_PATH`` name; ``bpe`` is the model's own tokenizer."""
    folder = Path(os.environ.get("DATA_PATH", recipe.data.path))
    path = os.environ.get("TOKENIZER_PATH", recipe.data.tokenizer)
    own = [Path(path)] if path.endswith(".bpe") else [] if path else list(folder.glob("*.bpe"))
    return Tokens(folder, bpe or (own[0].read_bytes() if own else b""), path)


def load(path: str) -> tuple[GPT, dict[str, Any], bytes]:
    """Return the model of a packed file, its manifest and its tokenizer, empty if it has none."""
    manifest, tensors = decode(Path(path).read_bytes())
    arrays = {name: array for name, _, _, array in tensors}
    bits = {
        name: (kind & 15, (kind >> 4 & 7) + 1 if kind >> 4 & 7 else 0) if kind >= 128 else (0, 0)
        for name, _, kind, _ in tensors
    }
    about = manifest["model"]
    config: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in about["config"].items()}
    model = GPT(GPTConfig(**config), about["vocab_size"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(restore(name, arrays, bits)))
    return model, manifest, arrays.get("@tokenizer", np.empty(0, np.uint8)).tobytes()


def evaluate(path: str, recipe: Any, world: World, log: Any) -> None:
    """Score a packed file on the validation shards, and print the contest's last lines."""
    began = time.perf_counter()
    model, manifest, bpe = load(path)
    tokens = tokens_of(recipe, bpe)
    if manifest["tokenizer_sha256"] != tokens.sha256():
        raise RuntimeError(f"{path}: another tokenizer than of {tokens.folder}")
    model.to(world.device).eval().activation_dtype = getattr(torch, recipe.precision)
    ids = tokens.shards("val")[:]
    context, length = manifest["eval"]["context"], len(ids)
    if recipe.whole_rows:
        length = (length - 1) // context * context + 1
    ids = np.ascontiguousarray(ids[:length])
    total_bytes = int(tokens.bytes_of(ids).sum())
    mixture: Any = None
    if recipe.eval.adapt == "mix":
        mixture = NgramMixture(manifest["model"]["vocab_size"])
    ranks = Ranks(world.rank, world.size, world.sum)
    booking = Booking(model, ids, context, recipe.eval.batch_tokens, ranks, silent, mixture)
    ends = [first - 1 for first, _ in recipe.strides[1:]] + [booking.targets]
    for (_, stride), end in zip(recipe.strides, ends, strict=True):
        booking.book_until(min(end, booking.targets), stride)
    losses = booking.close()
    nats = math.fsum(losses)
    size, code = Path(path).stat().st_size, recipe.code_bytes
    log(f"eval_time:{1000 * (time.perf_counter() - began):.0f}ms val_tokens:{len(losses)} val_bytes:{total_bytes}")
    log(f"Code size: {code} bytes")
    log(f"Total submission size {recipe.codec}: {code + size} bytes")
    exact = f"val_loss:{nats / len(losses):.8f} val_bpb:{nats / math.log(2) / total_bytes:.8f}"
    log(f"final_{recipe.codec.replace('+', '_')}_roundtrip_exact {exact}")


def recipe_of(tree: dict[str, Any]) -> Any:
    """Return a recipe whose tables are sections; the model's is the family's own config."""
    model: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in tree["model"].items()}
    plain = {key: section(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return section({**plain, "model": GPTConfig(**model)})
