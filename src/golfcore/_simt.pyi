"""The kernels for GPUs, compiled for the host; golfcore.ops.registry calls them. Absent with GOLF_SIMT=OFF."""

from typing import Any

def __getattr__(name: str) -> Any: ...
