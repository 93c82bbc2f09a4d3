"""Calibration: where text comes from, and the statistics that a model gathers on it."""
