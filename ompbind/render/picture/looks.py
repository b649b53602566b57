"""The colours of pictures, in light and in dark, as a style sheet."""

from __future__ import annotations

FONT = "system-ui, 'Segoe UI', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

# For each rank a fill and a strong colour, in light, then in dark. The first six are in the order
# of ompbind.colours, so that a rank has one hue everywhere; with more ranks they repeat.
RANKS = (
    ("#a5e1ea", "#0b7285", "#12525c", "#5fd3e6"),  # cyan
    ("#f4bfe6", "#a61e8f", "#6b2160", "#f29be3"),  # magenta
    ("#bce6b1", "#2b7a35", "#23552a", "#86d48f"),  # green
    ("#f9e48f", "#8a6a00", "#5c4b0c", "#ecca55"),  # yellow
    ("#bfd2fc", "#2c57c9", "#26417d", "#93b4ff"),  # blue
    ("#fbbdb6", "#c02a22", "#702622", "#ff9f97"),  # red
    ("#fbcb99", "#a84a00", "#6b380c", "#ffb26b"),  # orange
    ("#d8c9f8", "#6a3fc2", "#46317f", "#c4abff"),  # purple
    ("#dbea9d", "#5d7300", "#465410", "#c5dc62"),  # lime
    ("#dfcab4", "#80552a", "#523a22", "#d8b58d"),  # brown
)

LIGHT = {
    "page": "#ffffff", "text": "#1c2026", "soft": "#59636e", "edge": "#c3cad2", "frame": "#8a949e",
    "package": "#f6f8fa", "node": "#ffffff", "cache": "#f3f5f7", "bar": "#e9edf1",
    "idle": "#ffffff", "denied": "#e4e7ea", "plain": "#dbe7f6", "plain-edge": "#8fa9cc",
    "lesser": "#f3ead6", "lesser-edge": "#c0a878",
    "hatch": "#9aa4ae", "shared": "#d5d9de", "alarm": "#c02a22",
}  # fmt: skip
DARK = {
    "page": "#14171b", "text": "#eceff2", "soft": "#a3adb8", "edge": "#454d57", "frame": "#7b8691",
    "package": "#1b1f24", "node": "#14171b", "cache": "#20252b", "bar": "#2b3138",
    "idle": "#14171b", "denied": "#2c3036", "plain": "#233852", "plain-edge": "#5b7ba6",
    "lesser": "#40382a", "lesser-edge": "#8c7a52",
    "hatch": "#6b757f", "shared": "#4a515a", "alarm": "#ff9f97",
}  # fmt: skip

RULES = """\
text {{ font-family: {font}; fill: {text}; pointer-events: none; white-space: pre }}
.bold {{ font-weight: 600 }}
.soft {{ fill: {soft} }}
.page {{ fill: {page} }}
.hover {{ fill: none; pointer-events: all }}
.cpu.lesser {{ fill: {lesser}; stroke: {lesser-edge} }}
.rule {{ stroke: {edge}; stroke-width: 1; fill: none }}
.block {{ fill: {package}; stroke: {frame}; stroke-width: 1 }}
.node {{ fill: {node}; stroke: {edge} }}
.memory {{ fill: {node}; stroke: {frame}; stroke-dasharray: 4 3 }}
.cache {{ fill: {cache}; stroke: {edge} }}
.memory-bar {{ fill: {bar} }}
.cpu {{ fill: {plain}; stroke: {plain-edge}; stroke-width: 0.75 }}
.cpu.idle {{ fill: {idle}; stroke: {edge} }}
.cpu.denied, .chip.denied, .memory-bar.denied {{ fill: {denied}; stroke: {edge} }}
.cpu.shared {{ fill: {shared}; stroke: {frame} }}
.cpu.other {{ fill: {idle}; stroke: {edge}; stroke-dasharray: 2 2 }}
.cpu.set-aside {{ fill: {bar}; stroke: {frame} }}
.number {{ fill: {text} }}
.number.idle, .number.denied, .number.other {{ fill: {soft} }}
.strong.set-aside, .strong.shared {{ fill: {frame} }}
.hatch {{ stroke: {hatch}; stroke-width: 0.75; fill: none }}
.chip {{ fill: {bar}; stroke: {frame}; stroke-width: 0.75 }}
.link {{ stroke-width: 1.5; fill: none }}
.wrong {{ fill: none; stroke: {alarm}; stroke-width: 2.5; pointer-events: none }}
"""
RANK_RULES = """\
.{name} {{ fill: {fill} }}
.cpu.{name}, .chip.{name} {{ fill: {fill}; stroke: {strong} }}
.strong.{name} {{ fill: {strong}; stroke: none }}
.label.{name} {{ fill: {strong} }}
.number.{name} {{ fill: {text} }}
.link.{name} {{ stroke: {strong}; fill: none }}
"""


def make_style(scope: str) -> str:
    """Return the style sheet for elements inside those of the class `scope`."""
    light, dark = make_rules(LIGHT, 0, scope), make_rules(DARK, 2, scope)
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def make_rules(colours: dict[str, str], first: int, scope: str) -> str:
    rules = RULES.format(font=FONT, **colours)
    for n, rank in enumerate(RANKS):
        rules += RANK_RULES.format(
            name=f"rank{n}", fill=rank[first], strong=rank[first + 1], text=colours["text"]
        )
    scoped = []
    for line in rules.splitlines():
        selectors, _, declarations = line.partition(" {")
        parts = [f".{scope} {selector}" for selector in selectors.split(", ")]
        scoped.append(f"{', '.join(parts)} {{{declarations}\n")
    return "".join(scoped)
