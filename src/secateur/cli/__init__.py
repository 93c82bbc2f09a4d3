"""The command: one file per verb, which parses, calls and prints. Heavy imports happen inside the verbs."""
