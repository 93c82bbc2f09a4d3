"""Runtime-adaptive pruning: what a model may give up while it runs, what that costs, and who decides."""
