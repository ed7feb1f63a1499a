"""Using a trained model: from Python, and shard by shard."""
