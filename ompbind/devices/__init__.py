"""The devices that ranks use: GPUs, other accelerators, network cards."""
