"""What every written model folder holds."""
