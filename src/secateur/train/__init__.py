"""Training that recovers what pruning lost: one method per file."""
