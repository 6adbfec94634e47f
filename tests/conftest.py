import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # for tests/tiny.py
torch.set_num_threads(1)  # tiny tensors: a second thread would only wait for the first
