"""Plans in the words of other tools: each text read back, and what it leaves out."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ompbind
from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.exports import FORMATS, make_export
from ompbind.exports.systemd import quote_word
from ompbind.exports.yaml import write_map
from ompbind.options.commands import options_of
from ompbind.options.reports import EXPORTS, FORMS
from ompbind.plans import Plan
from tests.jobs.environments import need_environment
from tests.support.commands import (
    TIMEOUT,
    environment,
    ompbind_run,
    read_report,
    report_command,
)
from tests.support.needs import need_cpus, need_numactl, unavailable
from tests.support.trees import Shape, make_files, write_tree

ODD = "a b;'\"$(touch x)`touch x`\\\n*%h $X é\x1b"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes of four cores with two threads each, numbered by halves."""
    shape = Shape(packages=2, nodes=2, cores=8, threads=2, numbering="halves")
    return write_tree(make_files(shape), tmp_path_factory.mktemp("machine"))


def export(form: str, plan: Plan, rank: int | None = None) -> tuple[str, str]:
    """The text of a format, and its warning."""
    text, warning, _ = make_export(form, plan, rank, lambda name: f"/bin/{name}")
    return text, warning


def test_the_option_names_every_format() -> None:
    """What --format takes is what there is, and its help names it."""
    assert tuple(FORMATS) == EXPORTS
    (option,) = (o for o in options_of("show") if o.key == "format")
    assert {*FORMS, *EXPORTS} <= set(re.findall(r"\w+", option.help))


def test_srun_gets_the_kernel_s_numbers_as_masks(machine: Path) -> None:
    """A mask for each rank, and one of its nodes; what differs by rank is said to be left out."""
    plan = ompbind.plan(ranks=2, numa_bind=True, smt="all", topology=machine, command=["w", "a b"])
    text, warning = export("srun", plan)
    words = shlex.split(text)
    assert words[:4] == ["srun", "--ntasks-per-node=2", "--cpu-bind=mask_cpu:0xf0f,0xf0f0",
                         "--mem-bind=mask_mem:0x1,0x2"]  # fmt: skip
    assert words[-2:] == ["w", "a b"]
    assert "OMP_NUM_THREADS=8" in words
    assert not any(word.startswith(("OMP_PLACES", "RANK")) for word in words)
    assert "OMP_PLACES" in warning
    assert "RANK" in warning


@pytest.mark.parametrize(
    ("mem", "option", "lost"),
    [
        ("preferred", "--mem-bind=prefer,mask_mem:0x1,0x2", False),
        ("local", "--mem-bind=local", False),
        ("interleave", "", True),
        ("weighted-interleave", "", True),
        ("none", "", False),
    ],
)
def test_srun_s_memory(machine: Path, mem: str, option: str, lost: bool) -> None:
    """Each policy that srun has; the others are left out, and named."""
    plan = ompbind.plan(ranks=2, mem=mem, topology=machine, command=["w"])  # type: ignore[arg-type]
    text, warning = export("srun", plan)
    assert [w for w in shlex.split(text) if w.startswith("--mem-bind")] == [option] * bool(option)
    assert (f"memory policy {mem} of ranks 0-1" in warning) is lost


def test_policies_that_formats_lack(machine: Path) -> None:
    """Several preferred nodes, and balancing among those of bind, are numactl's only."""
    many = ompbind.plan(ranks=1, mem="preferred", topology=machine, command=["w"])
    balanced = ompbind.plan(
        ranks=1, mem="bind", mem_balancing=True, topology=machine, command=["w"]
    )
    for form in ("srun", "systemd"):
        text, warning = export(form, many)
        assert "memory policy preferred of rank 0" in warning
        assert "--mem-bind" not in text
        assert "NUMAPolicy" not in text
        assert "NUMA balancing of rank 0" in export(form, balanced)[1]
    assert "NUMAPolicy=bind\nNUMAMask=0-1\n" in export("systemd", balanced)[0]
    assert "--preferred-many=0-1 w" in export("sh", many)[0]
    assert "--balancing --membind=0-1 w" in export("sh", balanced)[0]


def test_srun_starts_one_command(machine: Path) -> None:
    """Ranks whose words differ are refused; a script takes them."""
    plan = ompbind.plan(ranks=2, template=True, topology=machine, command=["w", "{rank}"])
    with pytest.raises(UsageError, match="different commands"):
        export("srun", plan)
    assert "exec taskset -c 4-7 w 1\n" in export("sh", plan)[0]


def test_the_rankfile_has_a_line_for_each_rank(machine: Path) -> None:
    """The lines are Open MPI's; all else is a comment, whatever is in a command."""
    plan = ompbind.plan(ranks=2, smt="all", topology=machine, command=["w", "a\nrank 0=x slot=9"])
    text, _ = export("rankfile", plan)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == ["rank 0=localhost slot=0-3,8-11", "rank 1=localhost slot=4-7,12-15"]
    assert "-x OMP_NUM_THREADS=8 " in text
    assert "# not in here: variables that differ by rank (OMP_PLACES" in text


def test_rankfile_names_each_command(machine: Path) -> None:
    """Ranks with words of their own are parts of one mpirun."""
    plan = ompbind.plan(ranks=2, template=True, topology=machine, command=["w", "{rank}"])
    (line,) = [ln for ln in export("rankfile", plan)[0].splitlines() if "mpirun" in ln]
    assert re.findall(r" w (\d)", line) == ["0", "1"]
    assert line.count("-np 1") == 2


def test_docker_limits_cpus_and_nodes(machine: Path) -> None:
    """A line for each rank: its cpus, the nodes that its memory is bound to, all its variables."""
    plan = ompbind.plan(
        ranks=2, numa_bind=True, topology=machine, command=["w", ODD], env={"ODD": ODD}
    )
    lines = shlex.split(export("docker", plan)[0].replace('"${IMAGE:?names the image}"', "IMAGE"))
    half = lines.index("docker", 1)
    for rank, words in zip(plan.ranks, (lines[:half], lines[half:]), strict=True):
        assert words[2:4] == [f"--cpuset-cpus={rank.cpus}", f"--cpuset-mems={rank.mems}"]
        assert words[words.index("IMAGE") + 1 :] == ["w", ODD]
        given = [words[n + 1] for n, word in enumerate(words) if word == "-e"]
        assert given == [f"{k}={v}" for k, v in rank.env]


def test_what_containers_leave_out(machine: Path) -> None:
    """Policies that a cpuset does not have, and compose's missing nodes."""
    plan = ompbind.plan(ranks=2, mem="interleave", topology=machine, command=["w"])
    assert "memory policy interleave of ranks 0-1" in export("docker", plan)[1]
    plan = ompbind.plan(ranks=2, mem="bind", topology=machine, command=["w"])
    assert export("docker", plan)[1] == ""
    text, warning = export("compose", plan)
    assert "memory policy bind of ranks 0-1" in warning
    assert "\n# not in here: memory policy bind of ranks 0-1\n" in text


def test_pods_are_guaranteed_and_name_no_cpus(machine: Path) -> None:
    """Requests equal limits, of whole cpus; the variables that would name cpus are left out."""
    plan = ompbind.plan(ranks=2, topology=machine, command=["w", "$(X)"], role={"io": 1})
    text, warning = export("k8s", plan)
    assert text.count('cpu: "4"') == 2  # rank 0's request and limit
    assert text.count('cpu: "3"') == 2  # rank 1 gave the role a core
    assert 'memory: "${MEMORY}"' in text
    assert '- "$$(X)"' in text
    assert "OMP_PLACES" not in text.replace("variables that name cpus (OMP_PLACES", "")
    assert "which cpus and node a rank gets" in warning
    assert "OMPBIND_ROLE_IO" in warning


def in_json(escape: re.Match[str]) -> str:
    """An escape of YAML's as JSON has it."""
    if escape[1][0] in "xU":
        return json.dumps(chr(int(escape[1][1:], 16)))[1:-1]
    return escape[0]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.text(), min_size=1))
def test_yaml_is_read_as_it_was_meant(values: dict[str, str]) -> None:
    """JSON is YAML: without the long escapes each scalar is a JSON text, and reads the same."""
    for line in write_map(values).splitlines():
        key, _, scalar = line.partition(": ")
        text = re.sub(r"\\(x..|U.{8}|.)", in_json, scalar)
        assert json.loads(text) == values[key]
        assert scalar.isprintable()


@pytest.mark.parametrize("form", ["compose", "k8s", "systemd"])
def test_texts_that_are_not_utf8(form: str, machine: Path) -> None:
    """YAML and units have no bytes: refused, with what has them."""
    plan = ompbind.plan(topology=machine, command=["w", os.fsdecode(b"\xff")])
    with pytest.raises(UsageError, match=r"rank 0: '\\udcff' is not UTF-8 text"):
        export(form, plan)
    assert os.fsdecode(b"\xff") in export("sh", plan)[0]


@pytest.mark.parametrize("form", ["systemd", "taskset", "sh"])
def test_a_command_is_needed(form: str, machine: Path) -> None:
    """What is executed has to be known."""
    with pytest.raises(UsageError, match=f"--format {form} needs a command"):
        export(form, ompbind.plan(topology=machine))


def test_others_go_without_a_command(machine: Path) -> None:
    """srun's options, a rankfile and containers are of use alone."""
    plan = ompbind.plan(topology=machine)
    assert export("srun", plan)[0] == "srun --ntasks-per-node=1 --cpu-bind=mask_cpu:0xff\n"
    assert " COMMAND\n" in export("rankfile", plan)[0]
    assert export("docker", plan)[0].endswith('"${IMAGE:?names the image}"\n')
    assert "command" not in export("compose", plan)[0]
    assert "args" not in export("k8s", plan)[0]


@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_plan_is_exported(form: str, machine: Path) -> None:
    """Nothing in a saved plan begins a line or a comment of its own: names, reasons, variables and
    words are quoted, or refused."""
    evil = "x\nEVIL\r\nEVIL 'a\" $(EVIL)\x1b"
    plan = ompbind.plan(ranks=1, mem="bind", topology=machine, command=["w", evil])
    rank = plan.ranks[0].replace(env=(*plan.ranks[0].env, ("ODD", evil)), why=evil, gpus=(evil,))
    host = plan.host.replace(name=evil)
    text, warning = export(form, Plan(**(vars(plan) | {"host": host, "ranks": (rank,)})), 0)
    lines = re.split("[\n\r]", text)
    if form in ("srun", "docker", "taskset", "sh"):  # quoted for a shell, which may span lines
        assert "EVIL" in shlex.split("\n".join(ln for ln in lines if not ln.startswith("#")))[-1]
        lines = [line for line in lines if line.startswith("#")]
    assert not any(line.startswith("EVIL") for line in lines)
    assert "EVIL" not in warning or warning.isprintable()


# --- on the command line -------------------------------------------------------------------------


def test_show_prints_and_warns(machine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The text is data; what is left out is one warning with what has it."""
    args = ["show", "--topology", str(machine), "-n", "2", "--mem", "bind"]
    assert main([*args, "--format", "taskset", "--", "w"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 2
    lost = "--format taskset leaves out memory policy bind of ranks 0-1"
    hint = "--format sh writes a script that has all of it"
    assert err == f"ompbind: warning: {lost}\nhint: {hint}\n"
    assert main([*args, "--format", "docker", "--rank", "1", "--", "w"]) == 0
    out, err = capfd.readouterr()
    assert (out.count("docker run"), err) == (1, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "systemd", "-n", "2"], "--format systemd is for one rank"),
        (["--format", "srun", "--rank", "0"], "--rank has no effect on --format srun"),
        (["--format", "sh", "--explain"], "--explain does not go with --format sh"),
        (["--format", "srun", "--hosts", "n[1-2]"], "--format srun is for one machine"),
    ],
)
def test_what_formats_do_not_go_with(
    words: Sequence[str], message: str, machine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each contradiction is refused."""
    assert main(["show", "--topology", str(machine), *words, "--", "w"]) == 125
    assert message in capfd.readouterr().err


# --- read back by the tools ----------------------------------------------------------------------


def run_text(text: str, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the system's shell."""
    script = folder / "script"
    script.write_bytes(os.fsencode(text))
    env = {k: v for k, v in environment(**changes).items() if not k.startswith("OMPBIND")}
    return subprocess.run(
        ["sh", str(script)], env=env, cwd=folder, input="line\n", capture_output=True, text=True,
        timeout=TIMEOUT,
    )  # fmt: skip


@pytest.mark.parametrize("mem", ["none", "local"])
def test_the_script_starts_the_plan(mem: str, tmp_path: Path) -> None:
    """Run by the shell, each rank has the mask, the variables and the words of the plan; with a
    policy by numactl."""
    need_cpus(2)
    if mem != "none":
        need_numactl()
    command = [*report_command(tmp_path), ODD, os.fsdecode(b"\xff")]
    plan = ompbind.plan(ranks=2, mem=mem, command=command, env={"ODD": ODD})  # type: ignore[arg-type]
    text, warning = export("sh", plan)
    assert (warning, "numactl" in text) == ("", mem != "none")
    done = run_text(text, tmp_path, GOMP_CPU_AFFINITY="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for rank in plan.ranks:
        report = read_report(tmp_path, rank.rank)
        assert CpuSet.parse_kernel(report["cpus"]) == rank.cpus
        assert dict(rank.env).items() <= report["env"].items()
        assert "GOMP_CPU_AFFINITY" not in report["env"]
        assert report["argv"] == [os.fsencode(word) for word in command[-2:]]
    assert not (tmp_path / "x").exists()


def test_the_script_s_status_and_input(tmp_path: Path) -> None:
    """It waits for all ranks, exits as the first that failed, and its input is the first rank's."""
    need_cpus(2)
    word = 'read -r line; echo "$RANK:$line"; [ "$RANK" = 0 ] || exit 3'
    plan = ompbind.plan(ranks=2, command=["sh", "-c", word])
    done = run_text(export("sh", plan)[0], tmp_path)
    assert (done.returncode, sorted(done.stdout.split())) == (3, ["0:line", "1:"])


def test_the_script_ends_its_ranks(tmp_path: Path) -> None:
    """TERM reaches the ranks; the script exits when they have, with their status."""
    need_cpus(2)
    word = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    plan = ompbind.plan(ranks=2, command=["sh", "-c", word])
    script = tmp_path / "script"
    script.write_text(export("sh", plan)[0])
    process = subprocess.Popen(["sh", str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in plan.ranks] == ["up\n", "up\n"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 7
    process.stdout.close()


def test_taskset_s_lines_bind(tmp_path: Path) -> None:
    """Each line, pasted into a shell, starts its rank as planned."""
    need_cpus(2)
    plan = ompbind.plan(ranks=2, command=[*report_command(tmp_path), ODD])
    done = run_text(export("taskset", plan)[0], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for rank in plan.ranks:
        report = read_report(tmp_path, rank.rank)
        assert CpuSet.parse_kernel(report["cpus"]) == rank.cpus
        assert dict(rank.env).items() <= report["env"].items()
        assert report["argv"] == [ODD.encode()]


def test_systemd_takes_the_unit(machine: Path, tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say of it, and says something of a wrong one."""
    if shutil.which("systemd-analyze") is None:
        unavailable("there is no systemd-analyze; tools/setup-system test installs it")
    plan = ompbind.plan(
        ranks=2, mem="interleave", smt="all", topology=machine, env={"ODD": ODD},
        command=["true", ODD, "", "a;b", ";"],
    )  # fmt: skip
    text, warning = export("systemd", plan, 1)
    assert warning == ""
    lines = text.splitlines()
    assert {"CPUAffinity=4-7,12-15", "AllowedCPUs=4-7,12-15", "NUMAPolicy=interleave", "NUMAMask=1",
            "Environment=OMP_NUM_THREADS=8"} <= set(lines)  # fmt: skip
    bad = text.replace("=interleave", "=interleaved").replace("4-7,", "4--7,")
    for name, unit in (("good", text), ("bad", bad)):
        (tmp_path / f"{name}.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "./good.service",
         "./bad.service"],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert "good.service" not in done.stderr, done.stderr
    assert "interleaved" in done.stderr
    assert "4--7" in done.stderr


def test_words_of_a_unit() -> None:
    """Quotes, specifiers, variables and control characters are systemd's (systemd.syntax(7))."""
    assert quote_word("a-b") == "a-b"
    assert quote_word("") == '""'
    assert quote_word("50%") == '"50%%"'
    assert quote_word('a "b" \\') == '"a \\"b\\" \\\\"'
    assert quote_word("$X\n", command=True) == '"$$X\\x0a"'
    assert quote_word("A=$X") == '"A=$X"'


# --- their schemas, in make test-engines ---------------------------------------------------------


def test_compose_takes_the_file(machine: Path, tmp_path: Path) -> None:
    """The services have the plan's cpus, variables and words, as the compose specification has
    them."""
    python = need_environment("compose") / "python"
    plan = ompbind.plan(ranks=2, topology=machine, command=["w", "a b"], env={"ODD": ODD})
    text = export("compose", plan)[0].replace("${IMAGE:?names the image}", "debian:13")
    (tmp_path / "compose.yaml").write_text(text)
    read = (
        "import compose_spec, sys; c = compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read())"
    )
    code = f"{read}; c.validate(); print(c.to_json())"
    done = subprocess.run(
        [str(python), "-c", code, "compose.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    for rank in plan.ranks:
        service = services[f"rank-{rank.rank}"]
        assert CpuSet.parse_kernel(service["cpuset"].replace(" ", "")) == rank.cpus
        values = {k: str(v).replace("$$", "$") for k, v in service["environment"].items()}
        assert values == dict(rank.env)
        assert service["command"] == ["w", "a b"]


def test_kubernetes_takes_the_pods(machine: Path, tmp_path: Path) -> None:
    """The manifest obeys the schemas of the API, strictly."""
    program = need_environment("kubernetes") / "kubernetes-validate"
    plan = ompbind.plan(ranks=2, topology=machine, command=["w", ODD], env={"ODD": ODD})
    text = export("k8s", plan)[0].replace("${IMAGE}", "debian:13").replace("${MEMORY}", "1Gi")
    (tmp_path / "pods.yaml").write_text(text)
    done = subprocess.run(
        [str(program), "--strict", str(tmp_path / "pods.yaml")],
        capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_saved_plan_is_exported(tmp_path: Path) -> None:
    """A saved plan's ranks come out as new ones do."""
    ompbind.plan(command=["true"]).save(tmp_path / "plan")
    done = ompbind_run("show", "--plan", str(tmp_path / "plan"), "--format", "sh")
    assert run_text(done.stdout, tmp_path).returncode == 0
