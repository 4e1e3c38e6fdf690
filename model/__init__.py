"""The model: encoders and attention, search, training, bundles, serving."""
