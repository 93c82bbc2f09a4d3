"""GGUF files, read."""
