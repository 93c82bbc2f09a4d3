"""Measures of a model's quality: perplexity, tasks and bias."""
