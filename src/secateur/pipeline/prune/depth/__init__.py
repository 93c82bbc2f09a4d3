"""Blocks and sub-blocks that go."""
