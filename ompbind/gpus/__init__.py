"""Which GPUs a worker will see."""
