"""Whole jobs, read from a file."""
