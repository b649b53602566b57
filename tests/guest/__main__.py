"""The guest from the command line: to set it up, and to try something by hand."""

import argparse
import sys
import time
from pathlib import Path

from tests.guest.architectures import ARCHITECTURES
from tests.guest.guest import run
from tests.guest.image import make_image
from tests.guest.machine import parse_machine
from tests.guest.packages import GuestError

REPOSITORY = Path(__file__).parents[2]
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guest", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    setup = commands.add_parser("setup", help="fetch the kernel and make the image, once")
    setup.add_argument("architecture", nargs="?", choices=ARCHITECTURES, default="amd64")
    runner = commands.add_parser("run", help="boot, run a command, print what it printed")
    runner.add_argument("--architecture", choices=ARCHITECTURES, default="amd64")
    runner.add_argument("--numbering", choices=("adjacent", "spread", "interleaved"))
    runner.add_argument("--offline", metavar="CPU", type=int, action="append", default=[])
    runner.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    runner.add_argument("machine", help="packages, nodes, cores, threads: 2p2n4c2t, or 1p2n2c1t1m")
    runner.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    try:
        if options.name == "setup":
            make_image(ARCHITECTURES[options.architecture])
            return 0
        architecture = ARCHITECTURES[options.architecture]
        machine = parse_machine(options.machine)._replace(
            offline=tuple(options.offline),
            numbering=options.numbering or "adjacent",
        )
        began = time.monotonic()
        outcome = run(
            machine,
            options.command,
            env=None if architecture.is_native else {"PATH": PATH, "PYTHONPATH": str(REPOSITORY)},
            timeout=options.timeout,
            architecture=architecture,
            folders=[] if architecture.is_native else [REPOSITORY],
        )
    except (GuestError, ValueError) as e:
        print(f"guest: {e}", file=sys.stderr)
        return 125
    sys.stdout.write(outcome.out)
    sys.stderr.write(outcome.err)
    took = f"boot {outcome.boot:.1f} s, command {outcome.seconds:.1f} s"
    print(f"guest: {took}, all {time.monotonic() - began:.1f} s", file=sys.stderr)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
