"""Policies replayed on traces of memory."""
