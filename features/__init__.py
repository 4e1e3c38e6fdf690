"""The data that everything else reads: sequences, entities and history, and the Feast repository that serves them."""
