"""Modules of the model (SEMINAR, arXiv 2407.10714): encoders, target attention, the PSU's objectives, the click model."""
