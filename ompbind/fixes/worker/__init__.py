"""What runs in the worker's interpreter, which may have no ompbind and an older Python (3.8 on).

Standard library only, and no file imports another: each is found by its path. `path/` stands in
the worker's PYTHONPATH; the others are read when a module that a fix waits for is imported.
"""
