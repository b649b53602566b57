"""ompbind: starts worker processes where they belong on a machine."""

__version__ = "0.1.0"
