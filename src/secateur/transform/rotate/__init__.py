"""Orthogonal transformations that concentrate importance before pruning: principal axes, least entropy."""
