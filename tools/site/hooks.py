"""What the site has beside docs/: the options, from their table, and the README's neighbours."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
# Files that the site does not have are shown where the source is.
SOURCE = "https://github.com/ompbind/ompbind/blob/main/"
# A link to a file beside the README, and in one of these to anything.
OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:CHANGELOG|CONTRIBUTING|SECURITY)\.md)")
INSIDE = re.compile(r"\]\((?!\w+:|#|/)(?:docs/)?([^)]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of options and the pages beside the README."""
    sys.path.insert(0, str(ROOT))  # ompbind is not installed where the site is built
    sys.path.insert(0, str(ROOT / "tools"))
    from make_options import make_page

    files.append(File.generated(config, "reference/options.md", content=make_page()))
    for name in BESIDE:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead where pages are on the site."""
    path = page.file.src_uri
    if path in BESIDE:
        return INSIDE.sub(lambda match: f"]({place(match[1], files)})", markdown)
    return OUTSIDE.sub("](" + "../" * path.count("/") + r"\1", markdown)


def place(target: str, files: Files) -> str:
    """Return the site's link for one of a file beside the README."""
    name = target.partition("#")[0].removeprefix("docs/")
    if files.get_file_from_path(name):
        return target.removeprefix("docs/")
    return SOURCE + target
