"""The contest: its rules, records and logs. Nothing here imports torch at module level."""
