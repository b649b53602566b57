"""`python -m ompbind`, and what the installed script calls."""

import gc
import sys

if sys.version_info < (3, 10):  # noqa: UP036  # pip does not install it, but a clone can be run
    version = ".".join(map(str, sys.version_info[:2]))
    sys.stderr.write("ompbind: error: this is Python " + version + "\n")
    sys.stderr.write("hint: ompbind needs Python 3.10 or newer\n")
    sys.exit(125)

gc.disable()  # loading modules leaves no garbage; commands that go on for long enable it again

from ompbind.cli import leave, main  # noqa: E402

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
