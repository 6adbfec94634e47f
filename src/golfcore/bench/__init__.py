"""One harness for everything that is timed: checked first, warmed up, against others in the same process."""
