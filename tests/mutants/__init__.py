"""Mutation tests: one small change at a time in the code, and some test has to fail.

`mutations` finds the changes that can be made in a module, `plugin` is what pytest loads to run
those tests first that call the changed function, `python -m tests.mutants` (`make mutants`) tries
the changes and keeps results.txt; equivalent.txt names those that alter no behaviour.
"""
