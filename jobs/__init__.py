"""nnjobs' jobs: everything that knows mrjob. Runners, the round job, the driver and the command line."""
