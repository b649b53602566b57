"""The page of a comparison: well-formed, whole without anything from outside, and escaped."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest

from ompbind.compare.metric import Metric
from ompbind.compare.result import Result
from ompbind.compare.variants import UNBOUND, Omitted
from ompbind.machine import read_machine
from ompbind.render.pages import make_comparison_page
from tests.render.test_compare import RATE, Figures, make_result
from tests.render.test_render import EVIL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plans are for Linux")

VOID = {"meta", "br"}
EMPTY = {"rect", "line", "circle", "polyline", "path"}


class Page(HTMLParser):
    """Reads a page: its text, its elements and their attributes. A tag that closes another one
    fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def make_rich_result() -> Result:
    """An unbound variant, bound ones, a failed run, notes and an ablation."""
    figures: Figures = {UNBOUND: [90.0] * 12, "near": [100.0 + n for n in range(12)], "bad": [None]}
    result = make_result(RATE, figures)
    unbound, near, bad = result.variants
    variants = (unbound.replace(is_bound=False), near.replace(options=("--smt", "all")), bad)
    ablation = make_result(RATE, {"near": [1.0], "without --smt all": [2.0]})
    return result.replace(
        variants=variants, ablation=ablation, omitted=(Omitted("smt=9", "too many"),),
        arguments=("--vary", "smt=1,all", "--", "./a b", "c"),
    )  # fmt: skip


def test_a_page_has_everything() -> None:
    """The verdicts, every measurement, a picture of each bound plan and of the machine, and the
    commands that make it all again."""
    machine = read_machine(devices=False)
    page = Page(make_comparison_page(make_rich_result(), machine, "1.2.3"))
    for words in (
        "near is best", "less by", "round 12", "left out smt=9: too many", "note: a note",
        "bad: 1 of 1 run failed: ended with status 3", "seed 7", "ompbind 1.2.3",
        "ompbind compare --vary smt=1,all -- './a b' c", "ompbind run --smt all -- './a b' c",
        "without --smt all", *(str(100 + n) for n in range(12)),
    ):  # fmt: skip
        assert words in page.text, words
    assert page.names.count("svg") == 2 + 2 + 1 + 2 + 1  # boxes, ablation's, chart, plans, machine
    assert page.names.count("circle") == 2 * 24 + 2


def test_a_page_needs_nothing_from_outside() -> None:
    """No script, no link, no image, nothing that is loaded; the name of SVG's space is none."""
    text = make_comparison_page(make_rich_result(), read_machine(devices=False), "1")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a", "base"} & set(page.names)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "xlink:href", "srcset", "style"} & names
    assert not [name for name in names if name.startswith("on")]
    left = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//\w|url\(|@import", left)


def test_a_page_without_figures() -> None:
    """Where every run failed, or one round was measured, there is a page all the same."""
    page = Page(make_comparison_page(make_result(Metric(), {"x": [None]}), None, "1"))
    assert "No run gave a figure." in page.text
    page = Page(
        make_comparison_page(make_result(Metric("peak"), {"x": [1e6], "y": [2e6]}), None, "1")
    )
    assert "round 1" not in page.text


def test_words_of_others_stay_words() -> None:
    """Names, commands and what programs wrote cannot become markup, nor control characters."""
    result = make_rich_result()
    evil = f"<script>alert(1)</script>&amp;\"'{EVIL}"
    first, *others = result.variants
    runs = tuple(
        run.replace(failure=evil, tail=(evil,), variant=evil if run.variant == UNBOUND else "near")
        for run in result.runs if run.variant != "bad"
    )  # fmt: skip
    result = result.replace(
        command=(evil,), variants=(first.replace(name=evil, same=(evil,)), *others),
        notes=(evil,), omitted=(Omitted(evil, evil),), runs=runs, arguments=(evil,), ablation=None,
    )  # fmt: skip
    text = make_comparison_page(result, None, evil)
    page = Page(text)
    assert "script" not in page.names
    assert all(c.isprintable() for line in text.split("\n") for c in line)
    assert "<script>alert(1)</script>&amp;" in page.text
