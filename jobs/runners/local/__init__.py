"""The local runner: every task is a process on this machine."""
