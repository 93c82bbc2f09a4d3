"""Orthogonal transformations that concentrate what matters before anything is cut: principal axes, and least entropy, learned."""
