"""Which units a model can do without, and what each costs."""
