"""Peers that are not a setting of our own model: search units outside of it, named `benchmarks.peer_models.x:x`."""
