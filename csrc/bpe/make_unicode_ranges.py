"""Writes unicode_ranges.inc: which code points are letters, numbers and white space.

    python csrc/bpe/make_unicode_ranges.py > csrc/bpe/unicode_ranges.inc

Uses the package ``unicodedata2`` where it is installed, else Python's own ``unicodedata``. The table must be of the
Unicode version that tiktoken's and rustbpe's regex engine knows (16.0), or ids differ on younger characters.
White space is the Unicode property White_Space, which is categories Z* and six control characters.
"""

import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)
CONTROL_SPACES = "\t\n\v\f\r\x85"


def char_class(code_point: int) -> int:
    char = chr(code_point)
    if char in CONTROL_SPACES:
        return SPACE
    return {"L": LETTER, "N": NUMBER, "Z": SPACE}.get(unicodedata.category(char)[0], OTHER)


def main() -> None:
    starts: list[int] = []
    last = -1
    for code_point in range(sys.maxunicode + 1):
        if (now := char_class(code_point)) != last:
            starts.append(code_point << 2 | now)
            last = now
    print(f"// Unicode {unicodedata.unidata_version}; written by make_unicode_ranges.py, not by hand.")
    print("// Each entry: first code point of a range << 2 | class (0 other, 1 letter, 2 number, 3 white space).")
    for i in range(0, len(starts), 12):
        print("".join(f"0x{start:x}," for start in starts[i : i + 12]))


if __name__ == "__main__":
    main()
