"""Methods side by side on one model."""
