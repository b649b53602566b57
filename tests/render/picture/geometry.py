"""What must hold of every picture: each cpu once, readable text, nothing cut or written over."""

from __future__ import annotations

from xml.etree import ElementTree

from ompbind.cpuset import CpuSet
from ompbind.render.picture import Picture, make_svg
from ompbind.render.picture.shapes import Box, Lines, Words

SMALLEST = 8  # of text, in pixels
SVG = "{http://www.w3.org/2000/svg}"


def check_picture(picture: Picture, online: CpuSet) -> ElementTree.Element:
    """Fail for a picture that is not as it must be; return its SVG, parsed."""
    cells = [s for s in picture.shapes if isinstance(s, Box) and s.cpu is not None]
    assert sorted(c.cpu for c in cells if c.cpu is not None) == list(online)
    words = [s for s in picture.shapes if isinstance(s, Words)]
    assert all(w.text and w.size >= SMALLEST for w in words)
    check_inside(picture)
    check_apart(words)
    check_in_cells(words, cells)
    root = ElementTree.fromstring(make_svg(picture))
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        "svg", "style", "rect", "title", "text", "path",
    }  # fmt: skip
    assert len(list(root.iter(f"{SVG}text"))) == len(words)
    return root


def check_inside(picture: Picture) -> None:
    """Nothing is cut off at an edge."""
    for shape in picture.shapes:
        if isinstance(shape, Lines):
            points = [point for path in shape.paths for point in path]
            left, right = min(x for x, _ in points), max(x for x, _ in points)
            top, bottom = min(y for _, y in points), max(y for _, y in points)
        elif isinstance(shape, Words):
            left, right = shape.left, shape.left + shape.width
            top, bottom = shape.y - shape.size, shape.y + shape.size / 4
        else:
            left, right = shape.x, shape.x + shape.width
            top, bottom = shape.y, shape.y + shape.height
        assert left >= 0 <= top, shape
        assert right <= picture.width, shape
        assert bottom <= picture.height, shape


def check_apart(words: list[Words]) -> None:
    """No text is written over another, by the widths of the widest font."""
    rows: dict[int, list[Words]] = {}
    for w in words:
        for row in range(int(w.y - w.size * 0.75) // 10, int(w.y + w.size * 0.2) // 10 + 1):
            rows.setdefault(row, []).append(w)
    for row_words in rows.values():
        row_words.sort(key=lambda w: w.left)
        for n, a in enumerate(row_words):
            for b in row_words[n + 1 :]:
                if b.left >= a.left + a.width - 0.01:
                    break
                higher, lower = sorted((a, b), key=lambda w: w.y)
                assert lower.y - lower.size * 0.73 >= higher.y, (a, b)


def check_in_cells(words: list[Words], cells: list[Box]) -> None:
    """Each cpu's number stands in its cell."""
    numbers = {w.text: w for w in words if w.look.startswith("number ") and w.text.isdigit()}
    for cell in cells:
        w = numbers[str(cell.cpu)]
        assert cell.x <= w.left
        assert w.left + w.width <= cell.x + cell.width
        assert cell.y <= w.y - w.size * 0.73 < w.y <= cell.y + cell.height
