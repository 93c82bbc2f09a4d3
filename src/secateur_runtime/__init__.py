"""The device: what runs a pruned model, without the workshop that made it."""
