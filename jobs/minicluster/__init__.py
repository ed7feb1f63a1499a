"""A single-node Hadoop for tests and trials, assembled from Maven artifacts; it needs no root, no ssh and no shell."""
