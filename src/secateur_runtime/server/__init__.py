"""A server that speaks OpenAI's protocol and releases memory while it answers."""
