"""The arithmetic of reducers and of the all-reduce: the weighted average, drift, and the rounding of what is sent."""
