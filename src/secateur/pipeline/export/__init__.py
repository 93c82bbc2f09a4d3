"""A model written for a runtime."""
