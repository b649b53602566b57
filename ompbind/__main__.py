"""`python -m ompbind`, and what the installed script calls."""

import sys

from ompbind.cli import leave, main

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
