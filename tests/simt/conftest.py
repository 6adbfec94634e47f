import importlib.util

import pytest

# `make test` builds the module first. Anybody else hears what to do, once, in place of an error from each file.
if importlib.util.find_spec("golfcore._simt") is None:
    pytest.exit("tests/simt needs golfcore._simt, which runs the kernels for GPUs on the host: make simt", returncode=2)
