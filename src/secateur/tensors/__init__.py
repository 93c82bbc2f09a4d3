"""Tensor mathematics that many packages share."""
