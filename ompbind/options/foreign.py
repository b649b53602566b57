"""The options and words of other tools and their names here, the commands that take an option, and
values in the place of the worker's command.

Only read for the hint of an error.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import ParseError, UsageError
from ompbind.messages import did_you_mean, quote
from ompbind.options.commands import OPTIONS, options_of
from ompbind.options.values import is_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ompbind.options.table import Option

PLANNING = ("run", "show", "compare", "")  # "": from the Python API

# Answers that many names share.
SHOW = "ompbind show, which takes the same options"
CPUS = "--numa-bind-cpus {CPUS}"
NODE = "--numa-bind-nodes {NODE}"
RANKS = "-n {N}"
THINGS = "--per numa|package|l3|core"
OTHER_HOSTS = (
    "ompbind starts nothing on other hosts: srun, mpirun or torchrun do, and ompbind run binds "
    "each rank there"
)
OF_WORKER = "it is the worker's own: put it behind --, after the worker's command"

# What each option of another tool is called here. In braces: what stands for its value, which is
# filled in where one was typed. An answer that begins neither with an option nor with a command of
# ompbind explains. Sources: numactl(8), taskset(1), hwloc-bind(1), likwid-pin -h; mpirun(1) of Open
# MPI 4 and 5, mpiexec of MPICH and Intel MPI; srun(1), jsrun, aprun and PALS' mpiexec,
# flux-run(1), mpibind; torchrun, torch.backends.xeon.run_cpu, ipexrun, accelerate and DeepSpeed
# --help; vLLM's and SGLang's server arguments; hugectl(8); docker run, xargs, GNU parallel.
NAMES: tuple[tuple[str, str], ...] = (
    # how many
    ("-np --np --nprocs --ntasks --ntasks-per-node --tasks-per-node --processes", RANKS),
    ("--nproc-per-node --nproc_per_node --nproc --npernode -npernode -ppn --ppn -perhost", RANKS),
    ("--num-processes --num_processes --num-workers --workers --nrs --rs_per_host", RANKS),
    ("--ninstances --num-instances --instances -j --jobs --procs --num-procs --numprocs", RANKS),
    ("--nperdomain -nperdomain", "--per numa, with -n N"),
    ("--npersocket -npersocket --ntasks-per-socket", "--per package, with -n N"),
    ("--ntasks-per-core --tasks-per-core", "--oversubscribe, with -n N, to let ranks share cores"),
    ("--ntasks-per-gpu --gpus-per-rank", "--per gpu --gpu-env, which gives each rank a GPU"),
    ("--ncores-per-instance --ncores_per_instance --cores", "--cores-per-rank {N}"),
    ("--cpus-per-rank --cpus-per-proc --cpus-per-task --cores-per-task", "--cores-per-rank {N}"),
    ("--cpu_per_rs --cores-per-proc --cpus-per-process --depth -d", "--cores-per-rank {N}"),
    ("--cores-per-socket --cpus-per-socket", "--cores-per-rank N with --per package"),
    ("--overcommit -O --overload -overload", "--oversubscribe"),
    ("--nooversubscribe --no-oversubscribe", "leave it out: ranks share no core by default"),
    # where
    ("--map-by -map-by --rank-by -rank-by", THINGS),
    ("--bind-to -bind-to", f"{THINGS}, which binds each rank to one of them"),
    ("--bycore --bind-to-core -bind-to-core", "--per core"),
    ("--bysocket --bind-to-socket -bind-to-socket", "--per package"),
    ("--bynode", "--per numa"),
    ("--bind-to-none -bind-to-none", "--share, which lets ranks run on all cpus"),
    ("--bind -b --mpibind --greedy --cpu-affinity", THINGS),
    ("--cpu-bind --cpu_bind", "--numa-bind-cpus CPUS... or --per core"),
    ("-C --physcpubind --cpu-list --cpulist --cpu-set --cpu-sets --cpuset --cpuset-cpus", CPUS),
    ("--cpus --core-list --core_list --cores-list --bind_core_list --affinity --pin -pin", CPUS),
    ("-c", f"{CPUS}, or --cores-per-rank N"),
    ("-N --cpunodebind --cpubind --node --nodes --nodelist --nodes-list --bind-numa-node", NODE),
    ("--node-id --node_id --numa-node --numa-nodes --numa --ldom", NODE),
    ("--bind_cores_to_rank --enable_cpu_affinity", "leave it out: ompbind binds each rank of -n N"),
    ("--numa-binding", "--per gpu --share, which binds each rank to its GPU's node"),
    ("--skip-cross-node-cores --skip_cross_node_cores", "--balance equal --leave-over, with -n N"),
    ("--latency-mode --latency_mode", "-n N --cores-per-rank 4"),
    ("--throughput-mode --throughput_mode", "--per numa --mem bind"),
    ("--multi-instance --multi_instance", RANKS),
    ("--use-e-cores --use_e_cores", "--kind all, the default"),
    ("--core-spec -S", "--reserve {N}"),
    ("--distribute --launch_distribution", "--distribution block|cyclic|spread"),
    ("--rankfile -rf --rank-file", "--numa-bind-cpus CPUS..., a list for each rank"),
    ("--gpu-bind --gpus-per-task --gpu_per_rs --gpus --gpus-per-node -G", "--per gpu --gpu-env"),
    ("--gres --num-gpus --num_gpus", "--per gpu --gpu-env, a rank for each visible GPU"),
    ("--restrict --pulist", CPUS),
    ("--single", "--cores-per-rank 1"),
    ("--logical --physical", "leave it out: cpus are the kernel's numbers, as ompbind topo prints"),
    ("--all-tasks", "leave it out: every thread of a rank is bound"),
    ("-a --all", "leave it out: every thread of a rank is bound, and any cpu may be named"),
    # hardware threads
    ("--hint", "--smt 1 or --smt all"),
    ("--threads-per-core", "--smt {N}"),
    ("--use-hwthread-cpus --hwthread --use-logical-core --use-logical-cores", "--smt all"),
    ("--use_logical_core --use_logical_cores --multithread --hyperthreading", "--smt all"),
    ("--no-smt --nomultithread", "--smt 1, the default"),
    # memory
    ("-i --interleave", "--mem interleave --mem-nodes {NODES}"),
    ("-w --weighted-interleave", "--mem weighted-interleave --mem-nodes {NODES}"),
    ("-m --membind --cpuset-mems --mem-bind-nodes", "--mem bind --mem-nodes {NODES}"),
    ("-P", "--mem preferred --mem-nodes {NODES}, or -n N"),
    ("--preferred --preferred-many", "--mem preferred --mem-nodes {NODES}"),
    ("-p", "--mem preferred --mem-nodes NODES; of a running process: ompbind rebind PID"),
    ("-l --localalloc --local", "--mem local"),
    ("--balancing -balancing", "--mem bind --mem-balancing"),
    ("--mem-bind --mem_bind --policy --mempolicy --memory-policy",
     "--mem bind|preferred|interleave|weighted-interleave|local|none"),
    ("--hbm", "--mem-kind hbm --mem bind"),
    ("--no-hbm", "--mem-kind dram --mem bind"),
    ("--best-memattr", "--mem bind --mem-nodes NODES, as ompbind topo numbers them"),
    ("--disable-numactl --disable-taskset --taskset --disable_numactl", "--binder native"),
    # OpenMP and libraries
    ("-t --omp-threads --num-threads --nthreads --num_cpu_threads_per_process", "--threads {N}"),
    ("--omp-num-threads --omp_num_threads --threads-per-rank --thread", "--threads {N}"),
    ("--omp-places", "--places threads|cores|l3|numa|one|wide"),
    ("--omp-proc-bind", "--proc-bind close|spread|primary|true|false"),
    ("--omp-runtime --omp_runtime", "--runtime libgomp|libomp|libiomp5"),
    ("--enable-tcmalloc --enable_tcmalloc", "--preload tcmalloc"),
    ("--enable-jemalloc --enable_jemalloc", "--preload jemalloc"),
    ("--enable-iomp --enable_iomp", "--preload iomp5"),
    ("--memory-allocator --memory_allocator --allocator", "--preload tcmalloc|jemalloc|mimalloc"),
    ("--ld-preload --ld_preload", "--preload {PATH}"),
    ("--thp", "--huge-pages thp"),
    ("--heap --hugetlb", "--huge-pages 2M"),
    ("--disable-iomp --disable_iomp --use-default-allocator --use_default_allocator",
     "leave it out: ompbind preloads nothing without --preload"),
    # what to see
    ("-report-bindings --display-map --display --print-rank-map",
     "--report-bindings, or ompbind show before"),
    ("--dry-run --dryrun --dry_run --test-only --print --show -s", SHOW),
    ("--hardware -H --display-topo", "ompbind topo, which shows the machine"),
    ("--get", "ompbind doctor, which says what this process may use"),
    ("--json", "--format json, an option of all commands but ompbind run"),
    ("--of --output-format", "--format json, or --save FILE"),
    ("--pid --get-last-cpu-location", "ompbind verify PID..."),
    ("--debug --log-level --verbosity", "--verbose"),
    ("--silent --no-warnings", "--quiet"),
    ("--benchmark --bench --repeat --warmup", "ompbind compare, which measures bindings"),
    # output, variables
    ("--label --tag-output -tag-output --prepend-rank -prepend-rank --timestamp-output",
     "--output tag"),
    ("--output-filename --log-dir --log_dir --logdir --log-path --log_path --redirects --tee -o "
     "--error --outfile -outfile-pattern", "--output-dir {DIR}"),
    ("-x -e --export --set-env --setenv -E --pass-env", "--env {NAME=VALUE}"),
    ("-env -genv", "--env NAME=VALUE"),
    ("-envall -genvall -envlist -genvlist", "leave it out: workers get the whole environment"),
    ("--wdir -wdir -wd --chdir --cwd -D", "start the worker there: -- env --chdir=DIR COMMAND"),
    ("--kill-on-bad-exit -K", "--on-failure stop, the default"),
    ("--main_process_port --main-process-port", "--master-port {PORT}"),
    ("--rdzv-backend --rdzv_backend --rdzv-endpoint --rdzv_endpoint --rdzv-id --rdzv_id "
     "--standalone", "--master-port auto, for ranks on this machine"),
    ("--max-restarts --max_restarts", "leave it out: ompbind restarts nothing"),
    ("--no-python --no_python --module", "-- COMMAND, as in ompbind run -- python -m MODULE"),
    ("--mca -mca --prtemca --pmixmca --mpi --allow-run-as-root",
     "it is mpirun's: mpirun ... ompbind run -- PROGRAM binds each of its ranks"),
    # other hosts
    ("--hostfile -hostfile --machinefile -machinefile -f --host -host --hosts-file --nnodes",
     OTHER_HOSTS),
    ("--num-nodes --num_nodes --num_machines --node-rank --node_rank --partition", OTHER_HOSTS),
    # a server's, which belong behind --
    ("--tensor-parallel-size -tp --data-parallel-size -dp --pipeline-parallel-size -pp",
     "--serve vllm, which finds it in the command"),
    ("--tp --tp-size --dp --dp-size --pp-size --model-path",
     "--serve sglang, which finds it in the command"),
    ("--model --port --served-model-name --dtype --max-model-len", OF_WORKER),
    ("--server --engine-type", "--serve vllm|sglang|auto"),
    # ompbind's own, before a command
    ("--version -V", "ompbind --version"),
    ("--install-completion", "ompbind --install-completion"),
    ("--show-completion", "ompbind --show-completion"),
)  # fmt: skip

# What ranks are mapped or bound to, in the words of others, and here.
PER = {
    "core": "core", "cores": "core", "hwthread": "core", "l1cache": "core", "pu": "core",
    "cpu": "core", "cpus": "core", "thread": "core", "threads": "core",
    "l2cache": "l2", "l3cache": "l3", "l3caches": "l3", "llc": "l3", "ccx": "l3", "cache": "l3",
    "numa": "numa", "ldom": "numa", "ldoms": "numa", "node": "numa", "nodes": "numa",
    "numanode": "numa", "numa_node": "numa", "domain": "numa", "snc": "numa",
    "socket": "package", "sockets": "package", "package": "package", "packages": "package",
    "pkg": "package", "gpu": "gpu", "gpus": "gpu", "device": "gpu", "ccd": "die", "dies": "die",
    "module": "cluster",
}  # fmt: skip

# Other words for the values of our options.
VALUES: dict[str, dict[str, str]] = {
    "--per": PER,
    "--gpu-domain": {w: t for w, t in PER.items() if t in ("numa", "package", "l3")},
    "--places": {
        "ll_caches": "l3", "ll_cache": "l3", "llc": "l3", "l3cache": "l3", "caches": "l3",
        "numa_domains": "numa", "numa_domain": "numa", "nodes": "numa", "node": "numa",
        "hwthreads": "threads", "hwthread": "threads", "fine": "threads", "pus": "threads",
        "sockets": "one, with --per package", "socket": "one, with --per package",
        "packages": "one, with --per package", "all": "one", "none": "one",
    },
    "--proc-bind": {
        "master": "primary", "compact": "close", "scatter": "spread", "none": "false",
        "no": "false", "off": "false", "disabled": "false", "yes": "true", "on": "true",
    },
    "--mem": {
        "membind": "bind", "strict": "bind", "map_mem": "bind", "default": "none",
        "firsttouch": "none", "first-touch": "none", "localalloc": "local",
        "interleaved": "interleave", "preferred-many": "preferred", "prefer": "preferred",
        "weighted": "weighted-interleave", "weighted_interleave": "weighted-interleave",
    },
    "--distribution": {
        "block:block": "block", "cyclic:block": "block", "block:cyclic": "cyclic",
        "cyclic:cyclic": "cyclic",
        "cyclical": "cyclic", "round-robin": "cyclic", "rr": "cyclic", "scatter": "spread",
        "packed": "block", "compact": "block", "pack": "block",
    },
    "--balance": {"strict": "local", "even": "equal"},
    "--kind": {
        "p": "performance", "pcore": "performance", "p-core": "performance", "p-cores":
        "performance", "big": "performance", "fast": "performance", "e": "efficiency", "ecore":
        "efficiency", "e-core": "efficiency", "e-cores": "efficiency", "little": "efficiency",
    },
    "--runtime": {"gomp": "libgomp", "gnu": "libgomp", "omp": "libomp", "llvm": "libomp",
                  "iomp": "libiomp5", "iomp5": "libiomp5", "intel": "libiomp5"},
    "--omp": {"none": "off", "no": "off", "false": "off", "yes": "all", "on": "all"},
    "--binder": {"taskset": "native", "libnuma": "native", "syscall": "native", "none": "native"},
    "--output": {"label": "tag", "tagged": "tag", "file": "files", "raw": "inherit",
                 "none": "inherit"},
    "--on-failure": {"kill": "stop", "abort": "stop", "terminate": "stop", "ignore": "keep",
                     "continue": "keep"},
    "--inherited": {"strict": "error", "refuse": "error"},
    "--within": {"host": "node", "rank": "task"},
}  # fmt: skip


def hint_for_option(name: str, options: Sequence[Option], value: str = "") -> str:
    """Return the hint for an option that the command with these options does not have, with `value`
    typed after it."""
    command = command_of(options)
    by_name = {n: o for o in options for n in o.names}
    meant = translate(name, value)
    others = commands_with(name)
    if others and not meant.startswith("ompbind"):
        return f"{name} is an option of {others}"
    first = meant.split(" ")[0].rstrip(",")
    fits = command in PLANNING or first == "ompbind" or first in by_name
    if meant and fits:
        return f"use {meant}" if is_typed(meant) else meant
    plain = name.replace("_", "-")
    longer = [n for n in by_name if n.startswith(plain) and len(plain) > 4]
    if plain in by_name or len(longer) == 1:
        return f"did you mean {plain if plain in by_name else longer[0]}?"
    if hint := did_you_mean(name, (*by_name, "--help")):
        return hint
    if apart := take_apart(name, by_name):
        return f"write {apart}"
    if command in PLANNING:
        return f"the worker's own options follow its command; see ompbind {command or 'run'} --help"
    return f"see ompbind {command} --help"


def take_apart(name: str, names: Collection[str]) -> str:
    """Return `-v -n 2` for `-vn2`; "" where these are no short options of the command."""
    letters = name[1:].rstrip("0123456789")
    if name.startswith("--") or not letters[1:] or not all(f"-{c}" in names for c in letters):
        return ""
    return " ".join([*(f"-{c}" for c in letters), *filter(None, [name[1 + len(letters) :]])])


def is_typed(meant: str) -> bool:
    """Whether an answer begins with what can be typed, and not with an explanation."""
    return meant.startswith(("-", "ompbind ")) and meant != OTHER_HOSTS


def translate(name: str, value: str) -> str:
    """Return what another tool's option is here, "" where it is not in the table."""
    meant = next((meant for names, meant in NAMES if name in names.split()), "")
    special = ""
    if name.lstrip("-") in ("map-by", "bind-to", "rank-by"):
        special = translate_mapping(value)
    elif name in ("--cpu-bind", "--cpu_bind"):
        special = translate_cpu_bind(value)
    elif name in ("--mem-bind", "--mem_bind"):
        special = translate_mem_bind(value)
    elif name == "-m" and value.partition(":")[0] in ("block", "cyclic", "plane"):  # srun's
        special = f"--distribution {'cyclic' if value.endswith('cyclic') else 'block'}"
    elif name == "-H" and value:  # mpirun's
        special = OTHER_HOSTS
    return special or fill(meant, value)


def fill(text: str, value: str) -> str:
    """Return a text with its {…} replaced by the value that was typed, where that can be one."""
    before, brace, rest = text.partition("{")
    if not brace:
        return text
    kind, _, after = rest.partition("}")
    is_list = value[:1].isdigit() and not value.strip("0123456789,-:")
    good = {
        "N": parse_whole(value) is not None,
        "NODE": parse_whole(value) is not None,
        "NODES": is_list or value == "all",
        "CPUS": is_list,
        "PORT": parse_whole(value) is not None,
        "PATH": value.isprintable() and "/" in value and " " not in value,
        "NAME=VALUE": value.isprintable() and value[:1].isalpha() and " " not in value,
    }.get(kind, False)
    plain = f"{kind}..." if kind in ("NODE", "CPUS") else kind
    return f"{before}{value if good else plain}{after}"


def translate_mapping(value: str) -> str:
    """Return what `--map-by` and `--bind-to` of mpirun with this value are here, such as `numa`,
    `ppr:2:l3cache` or `slot:PE=4`; "" where that is not known."""
    words = value.lower().split(":")
    cores = next((w[3:] for w in words if w.startswith("pe=")), "")
    more = f" --cores-per-rank {cores}" if parse_whole(cores) else ""
    if words[0] == "none":
        return "--share, which lets ranks run on all cpus"
    if words[0] == "slot":
        return f"-n N{more}"
    if words[0] == "ppr" and len(words) > 2 and words[2] in PER:
        return f"--per {PER[words[2]]} -n N{more}, with N {words[1]} for each"
    return f"--per {PER[words[0]]}{more}" if words[0] in PER else ""


def translate_cpu_bind(value: str) -> str:
    """Return what `--cpu-bind` of srun with this value is here; "" where that is not known."""
    kind, _, listed = value.lower().removeprefix("verbose,").removeprefix("v,").partition(":")
    if kind == "map_cpu" and not listed.strip("0123456789,") and listed:
        return f"--numa-bind-cpus {listed.replace(',', ' ')}"
    if kind == "map_ldom" and not listed.strip("0123456789,") and listed:
        return f"--numa-bind-nodes {listed.replace(',', ' ')}"
    if kind == "mask_cpu":
        masks = [read_mask(mask) for mask in listed.split(",")]
        return (
            f"--numa-bind-cpus {' '.join(masks)}"
            if all(masks)
            else CPUS.replace("{CPUS}", "CPUS...")
        )
    if kind in ("verbose", "v"):
        return "--report-bindings, or ompbind show before"
    if kind in ("none", "no"):
        return "--share, which lets ranks run on all cpus"
    return f"--per {PER[kind]}" if kind in PER else ""


def translate_mem_bind(value: str) -> str:
    """Return what `--mem-bind` of srun with this value is here; "" where that is not known."""
    kind, _, listed = value.lower().removeprefix("verbose,").removeprefix("v,").partition(":")
    if kind == "map_mem" and not listed.strip("0123456789,") and listed:
        return f"--numa-bind-nodes {listed.replace(',', ' ')}"
    word = {"local": "bind", "prefer": "preferred", "none": "none", "no": "none"}.get(kind)
    return f"--mem {word}" if word else ""


def read_mask(text: str) -> str:
    """Return the cpus of a mask such as 0xff as a list, "" where it is none."""
    try:
        return str(CpuSet.parse_mask(text.removeprefix("0x")))
    except ParseError:
        return ""


def check_first_word(
    words: Sequence[str], name: str, value: str | None, option: Option, options: Sequence[Option]
) -> None:
    """Refuse a number, or a list of them, where the worker's command begins, after an option that
    has its value or takes none. `name`, `value`: as they were typed. Raises UsageError."""
    word, more = words[0], words[: [*words, "--"].index("--")]
    if option.kind == "list":
        problem, hint = "takes one value", f"{name} {value} {word} ... -- COMMAND"
        name += "="
    elif not is_marked(words):
        return
    elif option.kind == "optional":
        if value is not None:
            return
        problem, hint = "takes its value after =", f"{name}={word}"
    elif command_of(options) not in PLANNING:
        return  # a pid
    elif option.kind == "flag":
        problem, hint = "takes no value", hint_for_flag(name, " ".join(more), option, options)
    else:
        problem, hint = "takes one value", f"leave {' '.join(more)} out"
        if option.adds or "," in option.value:
            hint = f"{name} {','.join([value or '', *more])}"
    text = f"{name} {problem}, and {quote(word)} follows it"
    raise UsageError(text, hint=hint, option=name.rstrip("="))


def is_marked(words: Sequence[str]) -> bool:
    """Whether numbers are followed by --, so that the command begins only there."""
    return next((w for w in words if w == "--" or is_word(w.replace(".", ""))), "") == "--"


def hint_for_flag(name: str, value: str, option: Option, options: Sequence[Option]) -> str:
    """Return the hint for a value that a flag does not take: its opposite, or the list of the same
    name. `name`: as it was typed, which may be the opposite itself."""
    if value.lower() in ("no", "0", "false", "off"):
        if name not in option.names:
            return option.names[0]
        return f"--no-{option.names[0][2:]}" if option.no else f"leave {name} out"
    longer = [o.names[0] for o in options if o.kind == "list" and o.names[0].startswith(f"{name}-")]
    if longer and value and not is_word(value):
        return f"{longer[0]} {value}"
    return f"leave the value out: {name}"


def hint_for_value(option: Option, value: str) -> str:
    """Return the hint for a value that is not one of the option's choices."""
    lower = value.lower()
    if option.key == "mem" and value[:1].isdigit() and value.isalnum():  # srun's --mem
        return f"--mem-need {value} starts nothing unless so much is free; --mem is the policy"
    if option.key == "output" and "/" in value:
        return f"--output-dir {value} writes the output of each rank to a file there"
    meant = lower if lower in option.choices else VALUES.get(option.names[0], {}).get(lower, "")
    if meant.partition(",")[0] not in option.choices:
        meant = ""
    return f"did you mean {meant}?" if meant else did_you_mean(value, option.choices)


def is_foreign_list(text: str) -> bool:
    """Whether a text is a list in some notation, rather than the name of a command."""
    number = text.lstrip("+!^~")
    after = number.lstrip("0123456789")
    return text == "all" or number != text or (after != number and after[:1] in tuple("-.:,xX"))


def hint_for_list(text: str) -> str:
    """Return the hint for a list of cpus or nodes that is none, as other tools write them."""
    if text.lower().startswith("0x") and (cpus := read_mask(text[2:])):
        return f"write {cpus}: a list, not a mask"
    plain = text.lstrip("+!^~")
    if text.startswith("+") and plain:
        return f"write {plain}: numbers are the machine's, never relative to a cpuset"
    if text[:1] in ("!", "^", "~") and plain:
        return f"--exclude {plain} leaves these out"
    if text == "all":
        return "leave the option out for all cpus; --per numa makes a rank for each node"
    low, _, high = text.partition(":") if ":" in text else text.partition("..")
    if parse_whole(low) is not None and parse_whole(high) is not None:
        return f"write {low}-{high}"
    if ":" in text:
        return "write the kernel's numbers, as in 0-3,8; ompbind topo shows those of each part"
    return "write numbers and ranges, as in 0-3,8"


def hint_for_root(name: str) -> str:
    """Return the hint for an option that stands before any command; "" where there is none."""
    others = commands_with(name)
    return f"{name} is an option of {others}" if others else ""


def command_of(options: Sequence[Option]) -> str:
    """Return the command that has exactly these options; "" for any others."""
    commands = dict.fromkeys(c for o in options for c in o.commands)
    return next((c for c in commands if options_of(c) == tuple(options)), "")


def commands_with(name: str) -> str:
    """Return the commands that have an option of this name: `ompbind show and topo`, or ""."""
    names = [c for o in OPTIONS if name in o.names for c in o.commands]
    names = list(dict.fromkeys(names))
    if not names:
        return ""
    return f"ompbind {' and '.join([', '.join(names[:-1])] * bool(names[1:]) + names[-1:])}"
