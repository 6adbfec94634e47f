"""The contest's logs. Nothing here imports torch at module level."""
