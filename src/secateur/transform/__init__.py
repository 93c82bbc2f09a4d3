"""Carrying out a decision: masks, weight repair and surgery."""
