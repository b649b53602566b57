"""A machine's drawing and what stands around it, put together. Pure."""

from __future__ import annotations

from ompbind.render.picture.layout import arrange
from ompbind.render.picture.legend import draw_title
from ompbind.render.picture.shapes import Lines, Picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.render.picture.contents import Block
    from ompbind.render.picture.drawing import Drawer
    from ompbind.render.picture.legend import Piece
    from ompbind.render.picture.shapes import Shape

MARGIN = 18
WIDEST = 680  # of what is written around a narrower machine
UNLIMITED = 10_000
SPACE = 12  # between machine, keys and table


def assemble(
    contents: Block,
    drawer: Drawer,
    name: str,
    heading: Sequence[str],
    below: Sequence[Callable[[float], Piece]],
) -> Picture:
    """Return the machine under its heading, a title and details, with the other pieces below it;
    these are made for the room that there is."""
    frame = arrange(contents, drawer.cells)
    widths = [piece(UNLIMITED).width for piece in below]
    widths.append(draw_title(heading, UNLIMITED).width)
    room = max(frame.width, min(WIDEST, max(widths)))
    top = draw_title(heading, room)
    pieces = [piece(room) for piece in below]
    shapes: list[Shape] = [move(shape, MARGIN, MARGIN) for shape in top.shapes]
    y = MARGIN + top.height + (SPACE if top.shapes else 0)
    drawer.draw(contents, frame, MARGIN, y)
    drawer.draw_links()
    shapes += drawer.shapes
    y += frame.height
    for piece in pieces:
        if piece.shapes:
            y += SPACE
            shapes += [move(shape, MARGIN, y) for shape in piece.shapes]
            y += piece.height
    return Picture(room + 2 * MARGIN, y + MARGIN, name, tuple(shapes))


def move(shape: Shape, x: float, y: float) -> Shape:
    if isinstance(shape, Lines):
        return shape.replace(
            paths=tuple(tuple((a + x, b + y) for a, b in path) for path in shape.paths)
        )
    return shape.replace(x=shape.x + x, y=shape.y + y)
