"""Make the reference of options, a page for the site, from the table of options."""

from __future__ import annotations

from ompbind.options.commands import OPTIONS
from ompbind.options.table import PANELS, Option, Rule


def make_page() -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Options",
        "",
        "Every option, from the table that the parser, the help, the completion and the keywords",
        "of the Python API are made from. `ompbind help --places` explains one in the terminal. A",
        "list option takes all values up to the next option or `--`, and is added to when it is",
        "repeated; any other option takes its last value, unless it says otherwise.",
    ]
    for panel in PANELS:
        lines += ["", f"## {panel}"]
        for option in (o for o in OPTIONS if o.panel == panel):
            lines += ["", *describe(option)]
    return "\n".join(lines) + "\n"


def describe(option: Option) -> list[str]:
    """Return a heading, what the option does, and what it goes with."""
    names = ", ".join(sorted(all_names(option), key=lambda n: n.startswith("--")))
    space = "" if option.kind == "optional" or not option.value else " "
    commands = ", ".join(f"`ompbind {command}`" for command in option.commands)
    facts = [f"Option of {commands}"]
    if option.keyword_of:
        functions = " and ".join(f"`{name}`" for name in option.keyword_of)
        facts.append(f"keyword `{option.key}` of {functions} in Python")
    rows = [f"### `{names}{space}{option.value}`", "", f"{plain(option.help)}.", "",
            f"{'; '.join(facts)}."]  # fmt: skip
    if refused := name_terms(option.excludes):
        rows += ["", f"Not together with {refused}."]
    if needed := name_terms(option.needs):
        rows += ["", f"Only with {needed}."]
    return rows


def all_names(option: Option) -> list[str]:
    return [*option.names, *([f"--no-{option.names[0][2:]}"] if option.no else [])]


def plain(text: str) -> str:
    """Return a text of the help as Markdown, with what looks like markup taken literally."""
    for mark in "<>[]{}*_|":
        text = text.replace(mark, f"\\{mark}")
    return text


def name_terms(rules: tuple[Rule, ...]) -> str:
    """Return the options that rules name, as they are typed, each with when that holds."""
    names = []
    for rule in rules:
        when = f" (with {', '.join(rule.when)})" if rule.when and rule.when != ("True",) else ""
        for term in rule.terms:
            key, equals, value = term.partition("=")
            name = f"--{key.replace('_', '-')}" + f" {value}" * bool(equals)
            names.append(f"`{name}`{when}")
    return ", ".join(dict.fromkeys(names))
