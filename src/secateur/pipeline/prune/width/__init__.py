"""Units that go: neurons, heads, channels."""
