"""The hadoop runner: a run's jobs as Hadoop streaming jobs on YARN, its tasks in a packed environment."""
