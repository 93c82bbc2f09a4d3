"""Options, tables and progress that verbs share."""
