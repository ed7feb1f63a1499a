"""How long a run takes on how many workers: a cost model, its fit to measurements, and what follows from it.

Pure functions of numbers. What measures those numbers needs runners and lies in `jobs`.
"""
