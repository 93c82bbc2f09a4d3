"""A model behind the server."""
