"""Lists of devices that --env and --env-file give the workers: plans are about what they leave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ompbind.errors import OmpbindError
from ompbind.options import make_plan_options, read_arguments
from ompbind.plans import Plan
from ompbind.resolve import resolve_plan

GPUS = str(Path(__file__).resolve().parents[2] / "examples" / "gpus.topo")  # two near nodes 1 and 3


def plan(words: str, environ: dict[str, str] | None = None) -> Plan:
    values, command = read_arguments([*words.split(), "--topology", GPUS, "--", "w"], "show")
    environ = environ or {}
    return resolve_plan(make_plan_options(values, command, environ), environ)


def test_gpus_that_the_workers_will_see(tmp_path: Path) -> None:
    """Are those of --env or of --env-file, whatever ompbind's environment has; --gpu-env divides
    the list, and a template says nothing of what all see."""
    listed = plan("--per gpu --env CUDA_VISIBLE_DEVICES=3,2", {"CUDA_VISIBLE_DEVICES": "0"})
    assert [(r.gpus, str(r.nodes)) for r in listed.ranks] == [(("3",), "3"), (("2",), "3")]
    assert {dict(r.env)["CUDA_VISIBLE_DEVICES"] for r in listed.ranks} == {"3,2"}
    divided = plan("--per gpu --gpu-env --env CUDA_VISIBLE_DEVICES=3,1 --env A=1")
    assert [dict(r.env)["CUDA_VISIBLE_DEVICES"] for r in divided.ranks] == ["3", "1"]
    assert {dict(r.env)["A"] for r in divided.ranks} == {"1"}
    (tmp_path / "env").write_text("CUDA_VISIBLE_DEVICES=2\n")
    (alone,) = plan(f"--numa-bind --env-file {tmp_path / 'env'}").ranks
    assert (str(alone.mems), alone.why) == ("3", "GPU 0000:ab:00.0, node 3")
    assert len(plan("--per gpu --env CUDA_VISIBLE_DEVICES={rank}").ranks) == 4
    for words, ranks in (
        (f"--env-file {tmp_path / 'env'}", ["2"]),
        (f"--env-file {tmp_path / 'env'} --env CUDA_VISIBLE_DEVICES=1,0", ["1", "0"]),
    ):
        parts = plan(f"--per gpu --gpu-env {words}")
        assert [dict(r.env)["CUDA_VISIBLE_DEVICES"] for r in parts.ranks] == ranks
    passed_on = f"--per gpu --env-file {tmp_path / 'env'} --env CUDA_VISIBLE_DEVICES"
    (first,) = plan(passed_on, {"CUDA_VISIBLE_DEVICES": "0"}).ranks
    assert (first.gpus, dict(first.env)["CUDA_VISIBLE_DEVICES"]) == (("0",), "0")
    with pytest.raises(OmpbindError, match="CUDA_VISIBLE_DEVICES names '9'"):
        plan("--per gpu --env CUDA_VISIBLE_DEVICES=9")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no names for pipes here")
def test_variables_of_a_pipe() -> None:
    """`--env-file <(…)` can be read once, also where its list of devices is wanted before."""
    reader, writer = os.pipe()
    os.write(writer, b"CUDA_VISIBLE_DEVICES=2,3\nA=1\n")
    os.close(writer)
    ranks = plan(f"--per gpu --env-file /dev/fd/{reader}").ranks
    os.close(reader)
    assert [(r.gpus, dict(r.env)["A"]) for r in ranks] == [(("2",), "1"), (("3",), "1")]
