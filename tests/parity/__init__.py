"""The same placement as other tools give, case by case.

Each module is one tool: a table of its options, ours, and the cpus that each rank gets. What is
expected comes from that tool: it is run here as the judge where that is possible, else its answer
was recorded from a run, or stands in its documentation or its published tests; each table says
which. Where a tool is known to be wrong, the table says so and what ompbind does instead.
"""
