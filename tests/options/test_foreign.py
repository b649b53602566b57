"""What people type from their old tool: each is answered with what works here, and nothing else."""

from __future__ import annotations

import re
import shlex

import pytest

from ompbind.cli.help import COMMANDS, names_of
from ompbind.errors import OmpbindError
from ompbind.options import read_arguments
from ompbind.options.commands import OPTIONS
from ompbind.options.foreign import NAMES, OTHER_HOSTS, PER, VALUES

PLACEHOLDERS = {
    "{N}": "2", "N": "2", "{NODE}": "0 1", "NODE...": "0 1", "{NODES}": "0-1", "NODES": "0-1",
    "{CPUS}": "0-3 4-7", "CPUS...": "0-3 4-7", "{DIR}": "out", "{PORT}": "auto",
    "{NAME=VALUE}": "A=1", "NAME=VALUE": "A=1", "{PATH}": "x.so",
}  # fmt: skip

FOREIGN = [
    # numactl, taskset, hwloc-bind, likwid-pin
    ("--physcpubind=0-3,8", "use --numa-bind-cpus 0-3,8"),
    ("-C 0-3", "use --numa-bind-cpus 0-3"),
    ("-C0-3", "use --numa-bind-cpus 0-3"),
    ("--cpunodebind 1", "use --numa-bind-nodes 1"),
    ("--cpunodebind=all", "use --numa-bind-nodes NODE..."),
    ("-N 0", "use --numa-bind-nodes 0"),
    ("--membind 0,2", "use --mem bind --mem-nodes 0,2"),
    ("-m 0", "use --mem bind --mem-nodes 0"),
    ("--interleave all", "use --mem interleave --mem-nodes all"),
    ("--interleave", "use --mem interleave --mem-nodes NODES"),
    ("--preferred=1", "use --mem preferred --mem-nodes 1"),
    ("--localalloc", "use --mem local"),
    ("--hardware", "use ompbind topo, which shows the machine"),
    ("--cpu-list 0-3", "use --numa-bind-cpus 0-3"),
    ("-c 0-3", "use --numa-bind-cpus 0-3, or --cores-per-rank N"),
    ("--mempolicy interleave",
     "use --mem bind|preferred|interleave|weighted-interleave|local|none"),
    ("--get", "use ompbind doctor, which says what this process may use"),
    # mpirun, mpiexec
    ("-np 4", "use -n 4"),
    ("-ppn 2", "use -n 2"),
    ("--bind-to core", "use --per core"),
    ("-bind-to socket", "use --per package"),
    ("--bind-to none", "use --share, which lets ranks run on all cpus"),
    ("--map-by numa:PE=2", "use --per numa --cores-per-rank 2"),
    ("--map-by ppr:2:l3cache", "use --per l3 -n N, with N 2 for each"),
    ("--map-by slot:PE=4", "use -n N --cores-per-rank 4"),
    ("--map-by dist", "use --per numa|package|l3|core"),
    ("-report-bindings", "use --report-bindings, or ompbind show before"),
    ("-x A=b", "use --env A=b"),
    ("--use-hwthread-cpus", "use --smt all"),
    ("-genv I_MPI_DEBUG 5", "use --env NAME=VALUE"),
    ("--hostfile hosts", "ompbind starts nothing on other hosts: srun, mpirun or torchrun do, and "
     "ompbind run binds each rank there"),
    ("-H a,b", "ompbind starts nothing on other hosts: srun, mpirun or torchrun do, and "
     "ompbind run binds each rank there"),
    # srun
    ("--ntasks=4", "use -n 4"),
    ("--cpus-per-task=8", "use --cores-per-rank 8"),
    ("--cpu-bind=map_cpu:0,4,8", "use --numa-bind-cpus 0 4 8"),
    ("--cpu-bind=verbose,mask_cpu:0xff,0xff00", "use --numa-bind-cpus 0-7 8-15"),
    ("--cpu-bind=mask_cpu:xyz", "use --numa-bind-cpus CPUS..."),
    ("--cpu-bind=map_ldom:0,1", "use --numa-bind-nodes 0 1"),
    ("--cpu-bind=ldoms", "use --per numa"),
    ("--cpu-bind=none", "use --share, which lets ranks run on all cpus"),
    ("--cpu-bind=verbose", "use --report-bindings, or ompbind show before"),
    ("--cpu-bind v,cores", "use --per core"),
    ("--mem-bind=local", "use --mem bind"),
    ("--mem-bind=map_mem:0,1", "use --numa-bind-nodes 0 1"),
    ("-m block:cyclic", "use --distribution cyclic"),
    ("--hint=nomultithread", "use --smt 1 or --smt all"),
    ("--threads-per-core=2", "use --smt 2"),
    ("--label", "use --output tag"),
    ("--gpus-per-task 1", "use --per gpu --gpu-env"),
    # torchrun, run_cpu, ipexrun, accelerate, DeepSpeed
    ("--nproc-per-node=4", "use -n 4"),
    ("--nproc_per_node 4", "use -n 4"),
    ("--nproc-per-node gpu", "use -n N"),
    ("--rdzv-backend c10d", "use --master-port auto, for ranks on this machine"),
    ("--ninstances 4", "use -n 4"),
    ("--ncores-per-instance 8", "use --cores-per-rank 8"),
    ("--throughput-mode", "use --per numa --mem bind"),
    ("--enable-tcmalloc", "use --preload tcmalloc"),
    ("--memory-allocator jemalloc", "use --preload tcmalloc|jemalloc|mimalloc"),
    ("--ld-preload /x/y.so", "use --preload /x/y.so"),
    ("--bind_cores_to_rank", "leave it out: ompbind binds each rank of -n N"),
    ("--num_cpu_threads_per_process 4", "use --threads 4"),
    # vLLM, SGLang
    ("--tensor-parallel-size 2", "use --serve vllm, which finds it in the command"),
    ("--tp 2", "use --serve sglang, which finds it in the command"),
    ("--model M", "it is the worker's own: put it behind --, after the worker's command"),
    ("--numa_bind_nodes 0", "did you mean --numa-bind-nodes?"),
    # anybody's
    ("--silent", "use --quiet"),
    ("--benchmark", "use ompbind compare, which measures bindings"),
    ("--dry-run", "use ompbind show, which takes the same options"),
    ("--cpuset-cpus 0-3", "use --numa-bind-cpus 0-3"),
    ("--jobs 8", "use -n 8"),
    # another command's of ompbind
    ("--explain", "--explain is an option of ompbind show"),
    ("--save x", "--save is an option of ompbind topo and compare"),
    ("--watch", "--watch is an option of ompbind verify"),
    ("--version", "use ompbind --version"),
    # slips, and what is nobody's
    ("--numa-bind-node 0", "did you mean --numa-bind-nodes?"),
    ("--oversub", "did you mean --oversubscribe?"),
    ("--exlude 0", "did you mean --exclude?"),
    ("--exact-affinity", "the worker's own options follow its command; see ompbind run --help"),
    ("--balanced", "did you mean --balance?"),
    ("--balancer", "did you mean --balance?"),
    ("--inclusively", "the worker's own options follow its command; see ompbind run --help"),
    ("--config x", "the worker's own options follow its command; see ompbind run --help"),
    ("-vn 2", "write -v -n"),
    ("-qvn2", "write -q -v -n 2"),
    ("-vx", "the worker's own options follow its command; see ompbind run --help"),
    ("-Z", "the worker's own options follow its command; see ompbind run --help"),
]  # fmt: skip


def refuse(words: str, command: str = "run") -> OmpbindError:
    """The error of a command line, which must be one."""
    with pytest.raises(OmpbindError) as caught:
        read_arguments([*shlex.split(words), "--", "true"], command)
    return caught.value


@pytest.mark.parametrize(("words", "hint"), FOREIGN, ids=[f[0] for f in FOREIGN])
def test_options(words: str, hint: str) -> None:
    """An option of another tool is answered with what does the same here, its value filled in."""
    refused = refuse(words)
    name = re.split("[= ]", words)[0]
    assert refused.message.startswith(f"'{name[:2] if words == '-C0-3' else name}' is not an")
    assert refused.hint == hint


@pytest.mark.parametrize(("names", "answer"), NAMES, ids=[names for names, _ in NAMES])
def test_answers_work(names: str, answer: str) -> None:
    """What an answer begins with can be typed: ompbind takes it."""
    assert names.split()
    for ours in OPTIONS:
        if "run" in ours.commands:
            assert not set(names.split()) & set(names_of(ours))
    if answer.startswith("ompbind ") and answer != OTHER_HOSTS:
        word = answer.split()[1].strip(",")
        assert word in [*(c.name for c in COMMANDS), "--version", *names.split()]
    elif answer.startswith("-") and not answer.startswith("-- "):
        typed = re.split(r", | or |; ", answer)[0].replace(" with ", " ")
        option, _, choices = typed.partition(" ")
        each = [f"{option} {c}" for c in choices.split("|")] if "|" in choices else [typed]
        for one in each:
            words = [w for word in one.split() for w in PLACEHOLDERS.get(word, word).split()]
            words += ["-n", "2"] if "--balance" in words else []  # it divides the machine
            words += ["--per", "numa"] if "--distribution" in words else []
            command = "topo" if "--format" in words else "run"
            read_arguments([*words, *(["--", "true"] * (command == "run"))], command)


def test_names_stand_once() -> None:
    """No name has two answers."""
    names = [name for row, _ in NAMES for name in row.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    """A word of another tool leads to a value of the option; none is one already."""
    option = next(o for o in OPTIONS if name in o.names and o.choices)
    for word, meant in VALUES[name].items():
        if word in option.choices:
            assert VALUES[name] is PER or meant == word
            continue
        assert meant.partition(",")[0] in option.choices
        assert refuse(f"{name} {word}").hint == f"did you mean {meant}?"
        assert refuse(f"{name} {word.upper()}").hint == f"did you mean {meant}?"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--numa-bind-cpus 0-x", "write numbers and ranges, as in 0-3,8"),
        ("--numa-bind-cpus 0x0f 0xf0", "write 0-3: a list, not a mask"),
        ("--numa-bind-cpus +0-3", "write 0-3: numbers are the machine's, never relative to a "
         "cpuset"),
        ("--numa-bind-cpus !0-3", "--exclude 0-3 leaves these out"),
        ("--numa-bind-cpus all", "leave the option out for all cpus; --per numa makes a rank for "
         "each node"),
        ("--numa-bind-cpus 0:3", "a step is at least 1 and follows a range, as in 0-6:2"),
        ("--numa-bind-cpus 0..3", "write 0-3"),
        ("--numa-bind-cpus S0:0-3", "write the kernel's numbers, as in 0-3,8; ompbind topo shows "
         "those of each part"),
        ("--numa-bind-nodes node:1", "write the kernel's numbers, as in 0-3,8; ompbind topo shows "
         "those of each part"),
        ("--numa-bind-nodes all", "leave the option out for all cpus; --per numa makes a rank for "
         "each node"),
        ("--smt al", "1 uses one hardware thread of each core, all uses every one"),
        ("--threads auto", "leave --threads out for a thread for each place"),
        ("--numa-bind-nodes '0 0 1 1'", "leave the quotes around 0 0 1 1 out"),
        ("--exclude '0 8-9'", "--exclude 0,8-9"),
        ("--numa-bind-cpus 0 '1 2'", "leave the quotes around 1 2 out, or write 1,2 for one rank"),
    ],
)  # fmt: skip
def test_lists(words: str, hint: str) -> None:
    """A list in another tool's notation is answered in ours, where -- marks the command."""
    assert refuse(words).hint == hint


def test_list_without_mark() -> None:
    """Without -- a word that is no list is probably the command."""
    with pytest.raises(OmpbindError) as caught:
        read_arguments(["--numa-bind-cpus", "0-3", "./solver"], "run")
    assert caught.value.hint == "put -- between the values and the worker's command"
    for text, hint in (
        ("0x0f", "write 0-3: a list, not a mask"),
        ("0..3", "write 0-3"),
        ("0-x", "write numbers and ranges, as in 0-3,8"),
        ("!0", "--exclude 0 leaves these out"),
        ("7z", "put -- between the values and the worker's command"),
    ):
        with pytest.raises(OmpbindError) as caught:
            read_arguments(["--numa-bind-cpus", text], "show")
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("command", "words", "hint"),
    [
        ("show", "--nproc-per-node 2", "use -n 2"),
        ("show", "--frobnicate", "the worker's own options follow its command; see ompbind show "
         "--help"),
        ("topo", "--cores 2", "see ompbind topo --help"),
        ("topo", "-n 2", "-n is an option of ompbind run, show, compare and rebind"),
        ("topo", "--of xml", "use --format json, or --save FILE"),
        ("doctor", "--physcpubind 0", "see ompbind doctor --help"),
    ],
)  # fmt: skip
def test_other_commands(command: str, words: str, hint: str) -> None:
    """What a command has no use for is not suggested to it."""
    assert refuse(words, command).hint == hint


def test_values_of_another_option() -> None:
    """srun's --mem is a size, mpirun's --output has a directory; here these are other options."""
    assert refuse("--mem 40G").hint.startswith("--mem-need 40G starts nothing unless so much")
    assert refuse("--output logs/").hint.startswith("--output-dir logs/ writes the output of each")
