"""A model seen otherwise, tensor by tensor."""
