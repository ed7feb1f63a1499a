"""Runners: how a job is run, inline, by local processes or on a Hadoop cluster."""
