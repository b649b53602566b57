"""Worker-side fixes: chosen by ompbind, applied in the worker's interpreter.

`registry` finds fixes, `environment` adds the chosen ones to a plan's variables. The files in
`worker/` run in the worker, which finds them by path and never imports ompbind.
"""
