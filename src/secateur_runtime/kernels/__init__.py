"""Products with sparse weights in C: how they are built, loaded and called."""
