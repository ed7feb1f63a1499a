"""Several runs: evaluation, scaling, calibration of the simulator."""
