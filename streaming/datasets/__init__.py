"""Adapters: a data set becomes events."""
