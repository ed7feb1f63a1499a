"""A single-node Hadoop for tests and trials: assembled from Maven artifacts, run without root, ssh or a shell."""
