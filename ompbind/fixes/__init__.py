"""Worker-side fixes: chosen and carried by ompbind, applied in the worker's own interpreter.

`registry` knows which fixes there are, `carry` puts the chosen ones into a plan's environment. What
is in `worker/` runs in the worker: files found by their path, never by importing ompbind.
"""
