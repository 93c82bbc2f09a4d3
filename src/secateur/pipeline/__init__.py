"""What each verb does, from the first stage to the last."""
