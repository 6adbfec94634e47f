"""Write the pages of the reference that follow from the code: commands, keys of recipes, and the public Python API.

    python docs/generate.py            # writes docs/reference/cli.md, recipes.md, api.md, rules.md
    python docs/generate.py --check    # says what differs from the committed pages, exit code 1 if anything does

`make docs` runs it, and tests/test_docs.py checks that the committed pages are what it writes.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import re
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
from cyclopts import App

import golfcore
from golfcore import ops
from golfcore.cli import app
from golfcore.cli.options import range_of
from golfcore.contest.explain import examples
from golfcore.contest.ruleset import DEFAULT, load_rules, rule_set_names
from golfcore.model import family_configs
from golfcore.recipes import load_recipe, recipe_names, recipe_text
from golfcore.recipes.explain import KeyHelp, all_keys

REFERENCE = Path(__file__).parent / "reference"
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
NOTE = "<!-- Written by docs/generate.py from the code: change the docstrings there and run it again. -->"
WIDTH = 84  # of a signature before it takes a line for each parameter: what the site shows without scrolling


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    made = {"cli.md": cli_page(), "recipes.md": recipes_page(), "api.md": api_page(), "rules.md": rules_page()}
    return {
        REFERENCE / name: re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"
        for name, lines in made.items()
    }


# --- commands ---------------------------------------------------------------------------------------------------------


def cli_page() -> Iterator[str]:
    """Yield the lines of cli.md: every command with every option."""
    commands = list(walk(app, ("golfcore",)))
    yield from ("# Commands", "", NOTE, "")
    yield (
        "Every command with every option, as `golfcore COMMAND --help` prints them. Options may be given in any order. "
        "An option marked *repeatable* may be given several times. Any command takes `--debug`, which adds the Python "
        "traceback to an error. Results go to standard output and progress to standard error, so "
        "`golfcore inspect FILE --json | jq` works. Exit codes: 0 done, 1 a check failed or the input cannot be "
        "used, 2 wrong usage, 70 a fault in golfcore, 75 the machine lacks something for now (room on the disk), and "
        "the same command may work later. A command that is ended by a signal (Ctrl-C, SIGTERM, "
        "SIGHUP, or SIGPIPE if the reader of its output goes away) cleans up and dies by that signal, so a shell sees "
        "128 and the signal's number, and a loop ends."
    )
    yield from ("", "| command | what it does |", "| --- | --- |")
    for words, command in commands:
        name = " ".join(words)
        yield f"| [`{name}`](#{anchor(name)}) | {cell(summary_of(command))} |"
    for words, command in commands:
        yield from ("", f"## {' '.join(words)}", "")
        yield from described_command(words, command)


def walk(group: App, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield every command below ``group`` with the words that call it."""
    for name in group:
        if name.startswith("-"):
            continue
        command = group[name]
        if command.default_command is not None:
            yield (*words, name), command
        yield from walk(command, (*words, name))


def summary_of(command: App) -> str:
    """Return the first sentence of a command's help."""
    return parsed(command.default_command).short_description or ""


def described_command(words: Sequence[str], command: App) -> Iterator[str]:
    """Yield a command's help, its call, and the table of its arguments and options."""
    found = parsed(command.default_command)
    for text in (found.short_description, found.long_description):
        if text:
            yield from (prose(text), "")
    arguments = [argument for argument in command.assemble_argument_collection(parse_docstring=True) if argument.show]
    positional = [a for a in arguments if a.field_info.kind is not a.field_info.KEYWORD_ONLY]
    calls = [metavar(a) if a.required else f"[{metavar(a)}]" for a in positional]
    required = [f"{longest(a)} {value_name(a)}" for a in arguments if a not in positional and a.required]
    options = ["[OPTIONS]"] if any(a not in positional and not a.required for a in arguments) else []
    yield from ("```text", " ".join([*words, *calls, *required, *options]), "```", "")
    if not arguments:
        return
    yield from ("| option | value | default | meaning |", "| --- | --- | --- | --- |")
    for argument in arguments:
        names = [metavar(argument)] if argument in positional else sorted(argument.positives, key=len)
        shown = ", ".join(f"`{name}`" for name in names)
        about = argument.parameter.help or ("Print one JSON document." if names == ["--json"] else "")
        yield f"| {shown} | {value_text(argument)} | {default_text(argument)} | {cell(about)} |"


def metavar(argument: Any) -> str:
    """Return the name of a positional argument as it stands in a call."""
    name = longest(argument).removeprefix("--").upper()
    return f"{name}..." if argument.is_var_positional() else name


def longest(argument: Any) -> str:
    return str(max(argument.positives or argument.names, key=len))


def value_name(argument: Any) -> str:
    return longest(argument).removeprefix("--").upper()


def value_text(argument: Any) -> str:
    """Return in words what an option takes."""
    kinds, several = plain_type(argument.hint)
    if allowed := range_of(argument):
        kinds = [f"{kind} ({allowed.ends()})" if kind.endswith("number") else kind for kind in kinds]
    text = " or ".join(kinds)
    return f"{text}, repeatable" if several and not argument.is_var_positional() else text


def plain_type(hint: Any) -> tuple[list[str], bool]:
    """Return the kinds of value that a type allows, and whether there may be several."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return plain_type(inner[0])
    if origin is typing.Literal:
        return [f"`{word}`" for word in inner], False
    if origin in (typing.Union, types.UnionType):
        found = [plain_type(part) for part in inner if part is not type(None)]
        return [kind for kinds, _ in found for kind in kinds], any(several for _, several in found)
    if inner and isinstance(origin, type) and issubclass(origin, Sequence):
        return plain_type(inner[0])[0], True
    words = {bool: "flag", int: "whole number", float: "number", str: "text", Path: "path"}
    return [words[hint]], False


def default_text(argument: Any) -> str:
    """Return the default of an option as it would be typed; empty if there is none."""
    default = argument.field_info.default
    if argument.required:
        return "required"
    if default in (None, inspect.Parameter.empty, "", ()) or isinstance(default, bool):
        return ""
    if isinstance(default, Sequence) and not isinstance(default, str):
        return "`" + " ".join(map(str, default)) + "`"
    return f"`{default}`"


# --- keys of recipes --------------------------------------------------------------------------------------------------

SECTIONS = {
    "": ("The recipe itself", ""),
    "track": ("[track]", "The rules of a contest: the size of the file and the time."),
    "data": ("[data]", "The tokens that a run reads."),
    "model": ("[model]", "The model. The keys are those of the family `gpt`; a family of your own brings its own."),
    "optim": ("[optim]", "The optimizers: Muon for matrices, AdamW for embeddings, the output head and vectors."),
    "train": ("[train]", "The training loop: batches, clock, schedule, logging, checkpoints and averaged weights."),
    "quant": ("[quant]", "Quantization: how trained weights become small integers."),
    "eval": ("[eval]", "Evaluation: the windows of text in which a model is scored."),
}


def recipes_page() -> Iterator[str]:
    """Yield the lines of recipes.md: every key of every section, and the recipes that come with golfcore."""
    own = {name for name, config in family_configs().items() if config.__module__.startswith("golfcore.")}
    keys = [key for key in all_keys() if not key.family or key.family in own]
    yield from ("# Keys of a recipe", "", NOTE, "")
    yield (
        "A *recipe* is a TOML file that says everything about a run. This page explains every key: its meaning with "
        "its unit, what a value may be, the default, the name that the contest's scripts give it (an environment "
        "variable, which sets the key too), and its value in the recipes that come with golfcore. How to write a "
        "recipe is in [a recipe of your own](../guides/own-recipe.md)."
    )
    yield from ("", "The same for one key, and what two recipes do differently, from the command line:", "")
    yield "```console\n$ golfcore recipes explain quant.rate\n$ golfcore recipes diff pocket pocket_frontier\n```"
    yield from ("", "## Recipes that come with golfcore", "", "| recipe | seconds | bytes | what it is |")
    yield "| --- | ---: | ---: | --- |"
    for name in recipe_names():
        track = load_recipe(name, environment={}).config.track
        about = recipe_text(name).splitlines()[0].removeprefix("#").strip()
        yield f"| `{name}` | {track.train_s:g} | {track.cap_bytes:,} | {cell(about)} |"
    yield (
        "\nWithout a name `golfcore run` takes recipe `auto`: `pocket_frontier` "
        "[sized to the machine](../guides/sizing.md)."
    )
    for section, (title, about) in SECTIONS.items():
        entries = [key for key in keys if key.section == section]
        yield from ("", f"## {title}", "", *([about, ""] if about else []))
        if len(entries) > 1:
            yield from ("| key | meaning | default |", "| --- | --- | --- |")
            for key in entries:
                yield f"| [`{key.name}`](#{anchor(key.key)}) | {cell(key.summary)} | {code(key.default)} |"
        for key in entries:
            yield from described_key(key)


def described_key(key: KeyHelp) -> Iterator[str]:
    """Yield what there is to know of a key."""
    yield from ("", f"### {key.key}", "", prose(key.text), "")
    facts = [f"Type: {key.type}", f"default: {code(key.default)}" if key.default is not None else "required"]
    if key.section == "":
        facts[1] = "default: the name of the file"
    if key.environment:
        facts.append(f"contest name: `{key.environment}`")
    yield f"- {'; '.join(facts)}."
    values: dict[str, list[str]] = defaultdict(list)
    for recipe, value in key.recipes.items():
        values[code(value)].append(recipe)
    if key.section == "":
        return
    if len(values) == 1:
        yield f"- In the shipped recipes: {next(iter(values))} in each."
    else:
        texts = [f"{value} in {joined(names)}" for value, names in values.items()]
        yield f"- In the shipped recipes: {'; '.join(texts)}."


def code(value: Any) -> str:
    """Return a value as a recipe spells it."""
    if value is None:
        return ""
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- rules of contests ------------------------------------------------------------------------------------------------

KINDS = {
    "R": ("Rules", "Budgets, data and records."),
    "C": ("Conditions of an evaluation", "What makes a score one of text that the model has not seen."),
    "I": ("Invalid techniques", "Each with the smallest program that breaks it and its honest twin."),
}


def rules_page() -> Iterator[str]:
    """Yield the lines of rules.md: every rule with the check that decides it, and the rule sets."""
    rules = load_rules(DEFAULT)
    yield from ("# Rules of the contest", "", NOTE, "")
    yield (
        "Every rule that [`golfcore check`](../guides/checking-an-entry.md) knows, with its source and the check that "
        "decides it. *Severity* is the highest that a finding of the rule may have: BLOCK is proven by arithmetic, "
        "LIKELY rests on lines that look like a violation, REVIEW asks a person, INFO tells. Numbers of pull requests "
        "and issues are those of the contest's repository. `golfcore check --explain I7` prints the same."
    )
    yield from ("", "## Rule sets", "", "| rule set | date | bytes | train, s | evaluate, s | policies |")
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for name in rule_set_names():
        found = load_rules(name)
        policies = "; ".join(f"{p.name}: {p.text}" for p in found.policies)
        limits = found.limits
        title = f"`{name}`" + (" (the default)" if name == DEFAULT else "")
        budgets = f"{limits.cap_bytes:,} | {limits.train_s:g} | {limits.eval_s:g}"
        yield f"| {title} | {found.date} | {budgets} | {cell(policies)} |"
    for letter, (title, about) in KINDS.items():
        chosen = [rule for rule in rules.rules if rule.id.startswith(letter)]
        yield from ("", f"## {title}", "", about, "", "| rule | says | severity | decided by | source |")
        yield "| --- | --- | --- | --- | --- |"
        for rule in chosen:
            decided = f"{rule.severity} | {rule.check} | {cell(rule.source)}"
            yield f"| {rule.id} {rule.title} | {cell(rule.text)} | {decided} |"
    for name, parts in examples().items():
        rule = rules.rule(name)
        yield from ("", f"### {name}: {rule.title}", "", prose(parts["why"]), "", "Breaks the rule:", "")
        yield from ("```text", parts["breaks"].strip("\n"), "```", "", "Its honest twin:", "")
        yield from ("```text", parts["honest"].strip("\n"), "```")


# --- Python -----------------------------------------------------------------------------------------------------------

GROUPS = {
    "A run": ("load_recipe", "run", "RunResult"),
    "The stages of a run": ("train", "quantize", "pack", "score"),
    "What a run leaves": ("load_model", "generate", "Model", "Container", "Tokenizer"),
}


def api_page() -> Iterator[str]:
    """Yield the lines of api.md: every public name of golfcore and of golfcore.ops."""
    assert sorted([*(name for names in GROUPS.values() for name in names), "ops"]) == sorted(golfcore.__all__)
    yield from ("# Python API", "", NOTE, "")
    yield (
        "What `import golfcore` offers. These names are stable; everything else may change from version to version. "
        "Each name is imported when it is first used, so `import golfcore` loads neither torch nor numpy. Errors that "
        "are yours to act on are subclasses of `golfcore.errors.GolfError`; a message says what is wrong, the value, "
        "what was expected, and what to do next. Whole programs that use these "
        f"calls: {joined([f'[{path.name}](../../examples/{path.name})' for path in EXAMPLES])}."
    )
    yield ""
    for title, prefix, names in (
        *((title, "golfcore", names) for title, names in GROUPS.items()),
        ("Operations", "golfcore.ops", ops.__all__),
    ):
        shown = [f"[`{name}`](#{anchor(prefix + '.' + name)})" for name in names]
        yield f"- {title}: {', '.join(shown)}"
    for title, names in GROUPS.items():
        yield from ("", f"## {title}")
        for name in names:
            yield from described_object(f"golfcore.{name}", getattr(golfcore, name), "###")
    yield from ("", "## Operations: golfcore.ops", "")
    yield (
        "Functions for a network of your own. Each takes and returns torch tensors, works with autograd and under "
        "`torch.compile`, and is served by a native kernel if there is one for the tensor's device and type, else by "
        "plain torch. Letters at the end of a name are the dimensions of a tensor: B batch, T time, N tokens or heads, "
        "D model width, H head width, K key and value heads, V vocabulary, O outputs, I inputs. What they compute is "
        "in [native operations](operations.md)."
    )
    for name in ops.__all__:
        thing = getattr(ops, name)
        if callable(thing):
            yield from described_object(f"golfcore.ops.{name}", thing, "###")
        else:
            rows = ", ".join(str(tuple(row)) for row in thing)
            yield f"\n### golfcore.ops.{name}\n\nCoefficients of Newton-Schulz, one row per iteration: {rows}."


def described_object(name: str, thing: Any, level: str) -> Iterator[str]:
    """Yield the signature and the docstring of a function or class, and of a class's public methods."""
    yield from ("", f"{level} {name}", "")
    if inspect.isclass(thing):
        if not hasattr(thing, "__dataclass_fields__") and not hasattr(thing, "open"):
            yield from ("```python", signature_text(name, thing), "```", "")
        yield from docstring_lines(thing)
        for method, value in vars(thing).items():
            if method.startswith("_") or not (callable(value) or isinstance(value, (property, classmethod))):
                continue
            yield from described_method(name.rpartition(".")[2], method, value)
        return
    yield from ("```python", signature_text(name, thing), "```", "")
    yield from docstring_lines(thing)


def described_method(owner: str, name: str, value: Any) -> Iterator[str]:
    """Yield a method or property of a class."""
    yield from ("", f"#### {owner}.{name}", "")
    if isinstance(value, property):
        yield from ("A property.", "", *docstring_lines(value.fget))
        return
    function = value.__func__ if isinstance(value, classmethod) else value
    yield from ("```python", signature_text(f"{owner}.{name}", function, skip=1), "```", "")
    yield from docstring_lines(function)


def signature_text(name: str, thing: Any, skip: int = 0) -> str:
    """Return a call's signature as Python, on one line or with a line for each parameter."""
    found = inspect.signature(thing)
    parts, starred = [], False
    for parameter in list(found.parameters.values())[skip:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        parts.append(parameter_text(parameter))
    returns = "" if found.return_annotation is found.empty else f" -> {annotation(found.return_annotation)}"
    line = f"{name}({', '.join(parts)}){returns if not inspect.isclass(thing) else ''}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + line[line.rindex(")" + returns) :]


def parameter_text(parameter: inspect.Parameter) -> str:
    text = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "") + parameter.name
    typed = parameter.annotation is not parameter.empty
    if typed:
        text += f": {annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = getattr(parameter.default, "__name__", None) or repr(parameter.default).replace("'", '"')
        text += f" = {default}" if typed else f"={default}"
    return text


def annotation(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))


def docstring_lines(thing: Any) -> Iterator[str]:
    """Yield a docstring of Google's style as Markdown."""
    found = parsed(thing)
    for text in (found.short_description, found.long_description):
        if text:
            yield from (prose(text), "")
    for title, entries in (
        ("Arguments", [p for p in found.params if p.args[0] == "param"]),
        ("Attributes", [p for p in found.params if p.args[0] == "attribute"]),
    ):
        if entries:
            yield from (f"{title}:", "")
            yield from (f"- `{entry.arg_name}`: {prose(entry.description or '')}" for entry in entries)
            yield ""
    if found.returns and found.returns.description:
        what = f"`{found.returns.type_name}`: " if found.returns.type_name else ""
        yield from (f"Returns: {what}{prose(found.returns.description)}", "")
    if found.raises:
        yield from ("Raises:", "")
        yield from (f"- `{entry.type_name}`: {prose(entry.description or '')}" for entry in found.raises)
        yield ""


# --- text -------------------------------------------------------------------------------------------------------------


def parsed(thing: Any) -> docstring_parser.Docstring:
    """Parse a docstring, of Google's or of numpy's style."""
    text = inspect.getdoc(thing) or ""
    style = docstring_parser.DocstringStyle.NUMPYDOC if "\n----" in text else docstring_parser.DocstringStyle.GOOGLE
    return docstring_parser.parse(text, style=style)


def prose(text: str) -> str:
    """Return a docstring's paragraphs as Markdown, one line each; doctests and indented lines become code blocks."""
    made = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines()
        if all(line.startswith(("    ", ">>>")) for line in lines):
            made.append("\n".join(["```text", *lines, "```"]))
        elif any(line.lstrip().startswith("- ") for line in lines):
            made.append("\n".join(escaped(line) for line in lines))
        else:
            made.append(escaped(" ".join(line.strip() for line in lines)))
    return "\n\n".join(made)


def escaped(text: str) -> str:
    """Return text with double backticks as code, and outside of code with no character that Markdown would take."""
    text = text.replace("``", "`")
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([*<])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def cell(text: str) -> str:
    """Return text for a table's cell: one line, its bars escaped."""
    line = " ".join(text.split())
    return re.sub(r"(?<!\\)\|", r"\\|", escaped(line))


def anchor(title: str) -> str:
    """Return the anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args().check
    stale = False
    for path, text in pages().items():
        before = path.read_text() if path.exists() else ""
        if before == text:
            continue
        stale = True
        if check:
            lines = before.splitlines(), text.splitlines()
            print("\n".join(difflib.unified_diff(*lines, str(path), "docs/generate.py", lineterm="")))
        else:
            path.write_text(text)
            print(f"wrote {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
