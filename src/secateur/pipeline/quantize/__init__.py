"""Weights rounded to few bits."""
