"""Predict how long a run takes on any number of workers: a cost model, its fit to measurements, and advice.

All functions here are pure. The measurements need a runner, so the code that takes them is in `jobs`.
"""
