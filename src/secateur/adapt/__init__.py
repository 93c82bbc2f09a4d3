"""Runtime-adaptive pruning: rank, price and train offline; replay; serve an elastic model."""
