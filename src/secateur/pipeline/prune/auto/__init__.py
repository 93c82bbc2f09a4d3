"""Whatever serves a target best."""
