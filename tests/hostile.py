"""Names and paths that would be read as something else: markup, emoji, TOML, HTML, shell, control codes, options."""

NAMES = (
    "exp [/2]", "[bold]x[/bold]", "[/]", "[link=http://a.b]c", ":smile:", "\\[bold]", "two\nlines", "tab\tstop",
    "esc\x1b[31mred", "bell\x07back\x08", "q\"uote's", "back\\slash", "<script>alert(1)</script>",
    "$(touch pwned)`touch pwned`;|&", "größe 日本 😀", "1.10", "007", "true", "%s {0} {name} ${HOME}", " spaces ",
    "turned \u202e around", "'''", '"""', "#", "a=b", "dollar $x$ $y$",
)  # fmt: skip
# Bytes that are no UTF-8, as Python hands them on.
BYTES = ("\udcff", "caf\udce9.jsonl")


def plain(name: str) -> str:
    """The name as one component of a path."""
    return name.replace("/", "|")
