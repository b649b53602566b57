"""A real Linux kernel on a made-up machine, in QEMU: see guest.py; `python -m tests.guest --help`.

Nothing but the standard library in here: it also runs before there is a virtual environment.
"""
