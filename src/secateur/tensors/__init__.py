"""Tensor mathematics that many rooms use."""
