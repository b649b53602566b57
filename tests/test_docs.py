"""The documentation: its links, its index and its style."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ompbind.cli import main
from ompbind.options.commands import OPTIONS
from tests.support.images import IMAGES, arguments_for, find_images
from tools.make_options import make_page, plain

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*/*.md"), *DOCS.glob("*/*/*.md")])
COSTS = DOCS / "performance.md"  # written by make bench
TEXTS = [*sorted(ROOT.glob("*.md")), DOCS / "README.md", COSTS, *PAGES]
# What the README links to, so that its links work on PyPI as well.
BLOB = "https://github.com/ompbind/ompbind/blob/main/"

FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def find_links(path: Path) -> list[str]:
    """The targets of the page's links, outside code."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return LINK.findall(re.sub(r"`[^`\n]*`", "", text))


def find_anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each link to a page of ours leads to a file that is there, and to a heading in it."""
    for link in find_links(path):
        target, _, anchor = link.partition("#")
        if target.startswith(BLOB):
            file = ROOT / target.removeprefix(BLOB)
        elif "://" in target:
            continue
        else:
            file = path.parent / target if target else path
        assert file.exists(), link
        if anchor:
            assert anchor in find_anchors(file), link


def test_readme_links_are_absolute() -> None:
    """PyPI shows the README without the files beside it."""
    assert all("://" in link for link in find_links(ROOT / "README.md"))


def test_index_has_every_page() -> None:
    """docs/README.md links to each page, in the part that its folder is."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    parts = {
        part.partition("\n")[0].partition(":")[0].lower(): LINK.findall(part)
        for part in text.split("\n## ")[1:]
    }
    assert list(parts) == ["tutorial", "how-to", "reference", "explanation", "working on ompbind"]
    for page in PAGES:
        path = page.relative_to(DOCS)
        folder = path.parts[0]
        part = "working on ompbind" if folder == "development" else folder
        assert str(path) in parts[part]


def test_site_has_every_page() -> None:
    """The site's navigation has each page, and none that is not there."""
    text = (ROOT / "tools/site/mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = re.findall(r"[\w./-]+\.md", text)
    pages = [str(page.relative_to(DOCS)) for page in PAGES]
    more = ["README.md", "reference/options.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md",
            COSTS.name]  # fmt: skip
    assert sorted(listed) == sorted([*pages, *more])


def test_page_of_options_has_all() -> None:
    """The site's page of options has a part for each, with what its help says."""
    page = make_page()
    for option in OPTIONS:
        assert f"--{option.key.replace('_', '-')}" in page
        assert f"\n{plain(option.help)}.\n" in page
    assert page.count("\n### `") == len(OPTIONS)
    assert "Not together with `--numa-bind-nodes`, `--numa-bind-cpus`." in page


@pytest.mark.parametrize("name", find_images())
def test_pictures_are_drawn_by_their_commands(name: str, tmp_path: Path) -> None:
    """Each picture is what the command that its page names draws; `make readme` draws them."""
    file = tmp_path / name
    assert main(arguments_for(find_images()[name], file)) == 0
    assert file.read_text() == (IMAGES / name).read_text()


def test_every_picture_has_its_command() -> None:
    assert {path.name for path in IMAGES.iterdir()} == set(find_images())


def test_structure_has_every_package() -> None:
    """The page on the structure has each package, and each module beside the packages."""
    text = (DOCS / "development/structure.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", text.partition("\n## ")[0], re.MULTILINE)
    named = {name.strip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    source = ROOT / "ompbind"
    files = {path.stem for path in source.glob("[a-z]*.py")}
    packages = {path.parent.name for path in source.glob("*/__init__.py")}
    assert named - {"ompbind"} == files | packages


def test_page_names_differ() -> None:
    """`ompbind help NAME` means one page."""
    names = [page.stem for page in PAGES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    """A line of prose has at most 120 characters; tables and code may be wider."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    long = [ln for ln in text.splitlines() if len(ln) > 120 and not ln.startswith("|")]
    assert not [ln for ln in long if "](https://" not in ln]


def test_pages_start_with_a_title() -> None:
    """A page starts with its title and has one."""
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert text.startswith("# ")
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
