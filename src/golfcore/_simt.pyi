"""The kernels for GPUs, compiled for the host; golfcore.ops.registry calls them. `make simt` builds it."""

from typing import Any

def __getattr__(name: str) -> Any: ...
