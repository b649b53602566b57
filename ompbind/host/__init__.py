"""What surrounds a launch, here and now."""
