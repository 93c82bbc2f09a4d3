"""Comparisons on disk, and what is made of them: tables, charts, pages."""
