"""Messages between processes of ompbind: any text comes through, an error stays what it is."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind import errors
from ompbind.launch.pipes import make_pipe, parse_error, parse_messages, receive, send, send_error

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)  # lone surrogates, too
MESSAGES = st.lists(st.lists(ANY_TEXT, max_size=5).map(tuple), max_size=5)


def write_all(messages: list[tuple[str, ...]]) -> bytes:
    """Return what `send` writes for these messages."""
    reader, writer = make_pipe()
    for message in messages:
        send(writer, *message)
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read()


@given(MESSAGES)
def test_messages_come_through(messages: list[tuple[str, ...]]) -> None:
    """Whatever the texts: colons, digits, NULs, line ends, bytes that are no characters."""
    assert parse_messages(write_all(messages)) == messages


@given(MESSAGES, st.data())
def test_a_message_that_was_cut(messages: list[tuple[str, ...]], data: st.DataObject) -> None:
    """When the writer was killed, the messages before the last one are all there, and no other."""
    written = write_all(messages)
    cut = data.draw(st.integers(0, len(written)))
    parsed = parse_messages(written[:cut])
    assert parsed == messages[: len(parsed)]
    assert len(write_all(messages[: len(parsed) + 1])) > cut or parsed == messages


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("no command", hint="put it after --"),
        errors.DeniedError("rank 1: refused\ttwice", rank=1, part="cpus", errno=None),
        errors.CommandError("not found", found=False),
        errors.CommandError("cannot be executed", found=True, rank=3),
        errors.PlanError("of \udcff", hint="\0", wanted=-2, text="none", empty=""),
    ],
)
def test_an_error_comes_through(error: errors.OmpbindError) -> None:
    """Its class, message, hint, status and data are those that were sent."""
    reader, writer = make_pipe()
    send_error(writer, error)
    os.close(writer)
    (message,) = receive(reader)
    received = parse_error(message)
    assert type(received) is type(error)
    assert (received.message, received.hint) == (error.message, error.hint)
    assert (received.status, received.data) == (error.status, error.data)
    assert str(received) == str(error)


def test_an_error_fits_into_a_pipe() -> None:
    """However long its texts are: the other process reads only when this one has exited."""
    reader, writer = make_pipe()
    os.set_blocking(writer, False)
    send_error(
        writer, errors.OmpbindError("é" * 10**6, hint="\N{GRINNING FACE}" * 10**6, a="x" * 10**6)
    )
    os.close(writer)
    (message,) = receive(reader)
    assert parse_error(message).message == "é" * 3000


def test_an_unknown_class_becomes_the_base() -> None:
    """A class that only the sender has keeps its status."""

    class Private(errors.OmpbindError):
        status = 143

    reader, writer = make_pipe()
    send_error(writer, Private("stopped"))
    os.close(writer)
    received = parse_error(receive(reader)[0])
    assert type(received) is errors.OmpbindError
    assert received.status == 143
