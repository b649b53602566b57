"""Find out which binding is best for a command, and whether it matters: measure variants in rounds
and judge their figures."""
