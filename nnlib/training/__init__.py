"""What a worker does with a model, and how a round's results become the next model."""
