"""Verbs that ask about, adapt to or serve on a device."""
