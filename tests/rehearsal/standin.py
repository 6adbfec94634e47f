"""A stand-in for the hub with the contest's data in small: shards of made-up English and a SentencePiece tokenizer."""

from __future__ import annotations

import io
import json
import random
import sys
import types
from pathlib import Path

import numpy as np

DATASET, VARIANT, VOCAB = "fineweb10B_sp1024", "sp1024", 1024
MODEL = "tokenizers/fineweb_1024_bpe.model"
DOCUMENTS, SHARD_TOKENS = 400, 4_000
# A package of this name, which copies from a folder; the words to call it are those of the real one.
PACKAGE = '''"""A stand-in for huggingface_hub: downloads are copied from the folder that REHEARSAL_HUB names."""
import os
import shutil
from pathlib import Path


def hf_hub_download(*, repo_id, filename, repo_type, local_dir):
    target = Path(local_dir) / filename
    target.parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(Path(os.environ["REHEARSAL_HUB"]) / filename, target)
'''


def documents() -> list[str]:
    """Made-up English with a fixed seed, of enough words for 1,024 tokens."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(900)]
    return [" ".join(rng.choices(words, k=rng.randint(20, 120))).capitalize() + "." for _ in range(DOCUMENTS)]


def train_tokenizer(texts: list[str]) -> bytes:
    """A model with the contest's options."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, model_type="bpe", vocab_size=VOCAB,
        character_coverage=0.999, byte_fallback=True, split_digits=True, normalization_rule_name="nmt_nfkc",
        add_dummy_prefix=False, pad_id=0, bos_id=1, eos_id=2, unk_id=3, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return written.getvalue()


def make_hub(served: Path) -> str:
    """Write what the hub would serve below ``served``; return a line on it."""
    import sentencepiece

    from golfcore.data.shards import ShardWriter

    texts = documents()
    model = train_tokenizer(texts)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = [np.array([1, *processor.encode(text)], dtype=np.uint16) for text in texts]
    root = served / "datasets"
    (root / MODEL).parent.mkdir(parents=True)
    (root / MODEL).write_bytes(model)
    folder = root / "datasets" / DATASET
    folder.mkdir(parents=True)
    counts = {}
    for split, part in (("val", ids[: DOCUMENTS // 8]), ("train", ids[DOCUMENTS // 8 :])):
        with ShardWriter(folder, split, SHARD_TOKENS) as writer:
            writer.append(np.concatenate(part))
        counts[f"files_{split}"] = len(list(folder.glob(f"fineweb_{split}_*.bin")))
    manifest = {
        "datasets": [{"name": DATASET, "tokenizer_name": "sp", "stats": counts}],
        "tokenizers": [{"name": "sp", "model_path": MODEL}],
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return f"{counts['files_train']} training and {counts['files_val']} validation shards"


def write_package(folder: Path) -> None:
    """Put the stand-in for huggingface_hub into a folder for PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "huggingface_hub.py").write_text(PACKAGE)


def module() -> types.ModuleType:
    """Return the stand-in as a module of this process; REHEARSAL_HUB is read at each call."""
    made = types.ModuleType("huggingface_hub")
    exec(PACKAGE, made.__dict__)
    return made


if __name__ == "__main__":
    print(make_hub(Path(sys.argv[1])))
