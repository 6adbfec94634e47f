"""What a step of a GPT costs, as arithmetic on its config; torch-free, so that planning starts fast."""

from __future__ import annotations

from golfcore.model.gpt.config import GPTConfig, layer_order
from golfcore.model.work import Work


def gpt_work(config: GPTConfig, vocab_size: int, seq_len: int) -> tuple[Work, ...]:
    """The work of each phase of a GPT, first to last; see ``Family.work``.

    Left out are gates, and what is done once a step and not once a token: tables that are projected as a whole.

    Args:
        config: the model.
        vocab_size: logits a token.
        seq_len: tokens of a row; attention sees half of it on average, or of ``max_segment`` where that is less.
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
