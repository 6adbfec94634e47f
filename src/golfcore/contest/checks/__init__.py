"""Check what an entry claims: package, numbers, sizes, times, data, seeds."""
