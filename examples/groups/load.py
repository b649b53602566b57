"""The data loader of job.toml: asks the router so many times, prints the answers, and ends.

python load.py URL COUNT
"""

import sys
import urllib.request

url, count = sys.argv[1], int(sys.argv[2])
for _ in range(count):
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        sys.stdout.write(answer.read().decode())
