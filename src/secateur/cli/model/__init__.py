"""Verbs that plan or write a model."""
