"""A model whose level changes, made of a stored one."""
