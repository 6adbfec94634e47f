"""Compute the work of a GPT per token from its config; without torch, so that planning starts fast."""

from __future__ import annotations

from golfcore.model.gpt.config import GPTConfig, layer_order
from golfcore.model.work import Work


def gpt_work(config: GPTConfig, vocab_size: int, seq_len: int) -> tuple[Work, ...]:
    """Return the work per token in each phase of a run, first to last; see ``Family.work``.

    Left out are gates, and work that is done once per step instead of per token: tables that are projected as a whole.

    Args:
        config: the model.
        vocab_size: logits per token.
        seq_len: tokens per row; attention sees half a row on average, or half of ``max_segment`` if that is less.
    """
    d, hidden = config.model_dim, config.model_dim * config.mlp_mult
    wide = hidden * (2 if config.activation == "swiglu" else 1)
    layer = 2 * d * d + 2 * config.kv_dim * d + d * (wide + hidden)
    window = min(seq_len, config.max_segment or seq_len)
    found = []
    for phase, start in enumerate((0.0, *config.loop_starts)):
        passes = len(layer_order(config, phase))
        found.append(
            Work(
                start=start,
                blocks=passes * layer,
                head=vocab_size * d,
                attention=float(passes * window * d),  # two products over half the window
                residual=passes * d,
                inside=passes * wide,
                vocab=vocab_size,
                passes=passes,
            )
        )
    return tuple(found)
