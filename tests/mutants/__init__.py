"""Mutation tests: one small change at a time in the code, and some test has to fail.

`mutations` finds the changes that can be made in a module, `lines` notes which lines a test runs,
`plugin` is what pytest loads to run the tests that reach a change, `python -m tests.mutants` (`make
mutants`) tries the changes and keeps results.txt; equivalent.txt names those that alter no
behaviour.
"""
