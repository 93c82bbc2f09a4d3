"""Stored models of every format, read."""
