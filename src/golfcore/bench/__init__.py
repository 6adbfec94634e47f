"""The harness behind ``golfcore bench``: every case is checked, warmed up, and timed against others in one process."""
