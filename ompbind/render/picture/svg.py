"""A picture as SVG: text as text, no script, nothing from outside, no ids that could clash with
those of another picture on the same page."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from ompbind.messages import one_line
from ompbind.render.picture.looks import make_style
from ompbind.render.picture.shapes import Box, Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.render.picture.shapes import Picture, Shape, Words

SCOPE = "ompbind"  # the class of each picture, in which its style sheet holds


def make_svg(picture: Picture, *, style: bool = True) -> str:
    """Return the SVG element, which is a whole file as well. Without `style` it needs that of
    another picture on its page."""
    width, height = number(picture.width), number(picture.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{SCOPE}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f"aria-label={attribute(picture.name)}>",
    ]
    if style:
        lines.append(f"<style>\n{make_style(SCOPE)}</style>")
    lines.append(f'<rect class="page" width="{width}" height="{height}"/>')
    lines += map(draw_shape, picture.shapes)
    return "\n".join([*lines, "</svg>", ""])


def draw_shape(shape: Shape) -> str:
    if isinstance(shape, Box):
        return draw_box(shape)
    return draw_lines(shape) if isinstance(shape, Lines) else draw_words(shape)


def draw_box(box: Box) -> str:
    places = [("x", box.x), ("y", box.y), ("width", box.width), ("height", box.height)]
    if box.radius:
        places.append(("rx", box.radius))
    words = [f'class="{box.look}"'] + [f'{name}="{number(value)}"' for name, value in places]
    if box.cpu is not None:
        words.append(f'data-cpu="{box.cpu}"')
    start = f"<rect {' '.join(words)}"
    return f"{start}><title>{content(box.title)}</title></rect>" if box.title else f"{start}/>"


def draw_words(words: Words) -> str:
    anchor = "" if words.anchor == "start" else f' text-anchor="{words.anchor}"'
    return (
        f'<text class="{words.look}" x="{number(words.x)}" y="{number(words.y)}" '
        f'font-size="{number(words.size)}"{anchor}>{content(words.text)}</text>'
    )


def draw_lines(lines: Lines) -> str:
    strokes = []
    for path in lines.paths:
        points = " L".join(f"{number(x)} {number(y)}" for x, y in path)
        strokes.append(f"M{points}")
    return f'<path class="{lines.look}" d="{" ".join(strokes)}"/>'


def number(value: float) -> str:
    """Return a number with as many digits as a picture needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def content(text: str) -> str:
    """Return a text as XML's content. Control characters, which XML does not allow, are escaped."""
    return escape(one_line(text))


def attribute(text: str) -> str:
    return quoteattr(one_line(text))
