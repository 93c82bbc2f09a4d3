"""Views of a model: other weights or shapes, computed as each tensor is read."""
