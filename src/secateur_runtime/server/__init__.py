"""A server that speaks OpenAI's protocol and gives memory back while it answers."""
