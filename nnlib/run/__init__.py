"""A run and its directory: its plan, checkpoints, ledger, lease and journal."""
