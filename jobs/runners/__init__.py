"""Runners: how a job is run, in this process, by local processes or on a Hadoop cluster.

Importing this package prepares the import of mrjob, so that its modules import mrjob as any other library.
"""

from jobs.runners.mrjob_compat import prepare_mrjob

prepare_mrjob()
