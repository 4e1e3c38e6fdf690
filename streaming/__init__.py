"""Events: their schemas, the topics that carry them, and the one function that applies them to features and history."""
