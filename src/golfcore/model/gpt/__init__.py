"""The GPT family. Every file but ``family`` and ``cost`` is packed with a model."""
