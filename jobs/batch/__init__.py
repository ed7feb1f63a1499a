"""Jobs of map tasks alone: predicting, importing."""
