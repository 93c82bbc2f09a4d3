"""Training that recovers what pruning lost."""
