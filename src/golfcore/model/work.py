"""The cost of a token, as every family states it; torch-free."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """What one token costs on its way forward; products are counted in multiply-adds.

    Attributes:
        start: share of the run from which the model works like this; 0 for the first.
        blocks: products with the weights of all layers, each pass of a repeated layer counted.
        head: products with the table that gives the logits.
        attention: products of queries with keys and of weights with values, the mean over a causal window.
        residual: values of the residual stream, summed over the layers run.
        inside: values inside the MLPs, summed over the layers run.
        vocab: logits.
        passes: layers run, repeats counted.
    """

    start: float
    blocks: int
    head: int
    attention: float
    residual: int
    inside: int
    vocab: int
    passes: int

    @property
    def flops(self) -> float:
        """Floating-point operations of training on one token: two a product, and twice as many backward."""
        return 6.0 * (self.blocks + self.head + self.attention)
