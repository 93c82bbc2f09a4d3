"""The torch model whose level changes while it runs."""
