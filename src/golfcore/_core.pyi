# The compiled core is typed where it is wrapped: in golfcore.ops, golfcore.tokenizer and golfcore.artifact.
from typing import Any

def __getattr__(name: str) -> Any: ...
