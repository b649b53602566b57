"""The worker's own command: its file, what it brings, what is filled in."""
