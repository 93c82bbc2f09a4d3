"""Decide a plan, apply it."""
