"""Train a model on your own text, then ask the packed file what a sentence costs.

    python examples/own_text.py TEXT [--seconds 60]

TEXT is a file or folder of txt or jsonl. The model, its tokenizer and its code together take at most 300,000 bytes.
"""

import argparse

import torch

import golfcore

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text")
parser.add_argument("--seconds", type=float, default=60.0, help="of training")
options = parser.parse_args()

recipe = golfcore.load_recipe(
    "pocket_frontier",
    {
        "track.train_s": options.seconds,
        "track.cap_bytes": 300_000,
        "quant.reserve_s": options.seconds / 10,
        "data.vocab_size": 512,
        "model.model_dim": 96,
        "train.batch_tokens": 2048,
    },
)
result = golfcore.run(recipe, text=[options.text])
print(f"{result.score['val_bpb']:.4f} bits per byte, {result.packed['bytes']['file']:,} bytes: {result.artifact}")

model = golfcore.load_model(result.artifact)
sentence = "The model has never seen this sentence."
ids = torch.from_numpy(model.tokenizer.encode(sentence).astype("int64"))
with torch.no_grad():
    logits_1TV, _ = model.module.logits(model.module.new_state(1), ids[None, :-1])
nats = torch.nn.functional.cross_entropy(logits_1TV[0], ids[1:], reduction="sum").item()
print(f"{sentence!r} costs {nats / 0.6931:.0f} bits; as plain bytes {8 * len(sentence)}")
