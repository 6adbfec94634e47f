"""Train and use byte-level BPE tokenizers, and count bytes for the contest's SentencePiece models."""

from golfcore.tokenizer.auditing import Audit, audit
from golfcore.tokenizer.bpe import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, PATTERN, Tokenizer, split
from golfcore.tokenizer.sp_table import SentencePieceTable, sp_byte_table

__all__ = [
    "MAX_VOCAB_SIZE",
    "MIN_VOCAB_SIZE",
    "PATTERN",
    "Audit",
    "SentencePieceTable",
    "Tokenizer",
    "audit",
    "sp_byte_table",
    "split",
]
