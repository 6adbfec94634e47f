"""golfcore: train the best language model that fits a byte cap, and prove its score."""

from importlib.metadata import version

__version__ = version("golfcore")
