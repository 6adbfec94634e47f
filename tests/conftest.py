import json
import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for tests/tiny.py
torch.set_num_threads(1)  # tiny tensors: a second thread would only wait for the first


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 80 short documents of made-up English with a fixed seed."""
    rng = random.Random(0)
    words = ["the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "was", "on", "with", "as", "be", "at"]
    words += ["".join(rng.choices("etaoinshrdlu", k=rng.randint(3, 9))) for _ in range(150)]
    path = tmp_path_factory.mktemp("text") / "documents.jsonl"
    with path.open("w") as f:
        for _ in range(80):
            text = " ".join(rng.choices(words, k=rng.randint(20, 90))).capitalize() + "."
            f.write(json.dumps({"text": text}) + "\n")
    return path
