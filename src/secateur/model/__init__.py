"""Where models come from, what they are made of, and how they are read and written one block at a time."""
