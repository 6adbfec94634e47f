"""The work of a model per token, as every family states it; without torch."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """The work of one token in the forward pass; products are counted in multiply-adds.

    Attributes:
        start: share of the run at which this phase begins; 0 for the first phase.
        blocks: products with the weights of all layers, each pass of a repeated layer counted.
        head: products with the matrix that gives the logits.
        attention: products of queries with keys and of weights with values, the mean over a causal window.
        residual: values of the residual stream, summed over the layers run.
        inside: values inside the MLPs, summed over the layers run.
        vocab: number of logits.
        passes: number of layers run, repeats counted.
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
        """Return the floating-point operations of training on one token: two per product, twice as many backward."""
        return 6.0 * (self.blocks + self.head + self.attention)
