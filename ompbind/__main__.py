"""`python -m ompbind`, and what the installed script calls."""

import gc
import sys

gc.disable()  # loading modules leaves no garbage; commands that go on for long enable it again

from ompbind.cli import leave, main  # noqa: E402

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
