"""Training: examples, the PSU, the click model, evaluation, export, the gate."""
