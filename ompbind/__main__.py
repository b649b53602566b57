"""`python -m ompbind`, and what the installed script calls."""

import sys

from ompbind.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
