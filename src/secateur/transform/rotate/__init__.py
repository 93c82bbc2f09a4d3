"""Orthogonal transformations that concentrate what matters before anything is cut.

Principal axes, and least entropy, learned.
"""
