"""Real inference servers: an environment of vLLM for CPUs, a model that is made up, and how to
start and ask a server. The stand-in that ordinary tests start is in tests/support/server.py."""
