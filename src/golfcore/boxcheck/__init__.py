"""Check a machine for a recipe before it is paid for: disk, tokens, GPUs, compiler, links, and the time of steps."""
