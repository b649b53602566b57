"""Shell completion: what a TAB offers, as each script asks for it, and in the real shells."""

from __future__ import annotations

import pytest

from tests.support.commands import environment, ompbind_run


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ompbind ", {"run", "show"}),
        ("ompbind ru", {"run"}),
        ("ompbind run --numa-b", {"--numa-bind", "--numa-bind-nodes", "--numa-bind-cpus"}),
        ("ompbind run --places ", {"threads", "cores", "l3", "numa", "one", "wide"}),
        ("ompbind run --places c", {"cores"}),
        ("ompbind show --format ", {"table", "json", "env", "argv"}),
        ("ompbind run --mem pre", {"preferred"}),
    ],
)
def test_completion_for_bash(words: str, wanted: set[str]) -> None:
    """What bash asks is answered with commands, options and their values, each on a line."""
    count = len(words.split(" ")) - 1
    env = environment(
        _OMPBIND_COMPLETE="complete_bash", COMP_WORDS=words.replace(" ", "\n"),
        COMP_CWORD=str(count),
    )  # fmt: skip
    done = ompbind_run(env=env)
    assert done.stderr == ""
    answer = set(done.stdout.split())
    assert answer >= wanted if count == 1 and words.endswith(" ") else answer == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets a script that asks ompbind."""
    done = ompbind_run(env=environment(_OMPBIND_COMPLETE=f"source_{shell}"))
    assert done.stderr == ""
    assert "_OMPBIND_COMPLETE" in done.stdout
    assert "complet" in done.stdout
