"""What to do to a model for a device."""
