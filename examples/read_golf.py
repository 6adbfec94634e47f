"""Read a packed model with numpy alone and list its weights.

    python examples/read_golf.py runs/ID/model.golf

``plain_decoder.py`` is the whole decoder: 330 lines of numpy, which can be copied out of the package.
"""

import sys
from pathlib import Path

import numpy as np

from golfcore.container import plain_decoder

manifest, tensors = plain_decoder.decode(Path(sys.argv[1]).read_bytes())
arrays = {name: array for name, role, kind, array in tensors}
model = manifest["model"]
print(f"family {model['family']}, vocabulary {model['vocab_size']}, recipe {manifest['recipe']}")
for name, role, kind, symbols in tensors:
    if role in ("code", "tokenizer", "scale"):
        continue
    if name + ".scale" not in arrays:
        print(f"{name:<34} {role:<10} {symbols.dtype} {symbols.shape}")
        continue
    # A weight is symbol x step of its row. With a trellis, symbols count in half steps and carry a state
    # (golfcore.container.trellis); the row's step is right in either case.
    step_O = arrays[name + ".scale"].astype(np.float32).reshape(len(symbols), -1)[:, 0]
    print(
        f"{name:<34} {role:<10} {kind & 15} bits {symbols.shape}  symbols {symbols.min()} to {symbols.max()}, "
        f"mean step {step_O.mean():.5f}"
    )
