"""The GPT family: every file but ``family`` and ``cost`` is part of the code that a packed model carries."""
