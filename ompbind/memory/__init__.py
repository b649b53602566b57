"""What ranks' memory gets besides its nodes: allocators, huge pages, files read into it."""
