"""Benches: each a command that prints one JSON line of measured figures."""
