"""The nouns of the project. Nothing here imports another secateur package."""
