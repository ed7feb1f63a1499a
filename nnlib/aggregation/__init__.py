"""What reducers and the all-reduce share: the weighted average, drift, and the rounding of what is sent."""
