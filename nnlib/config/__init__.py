"""The configuration of an experiment.

Its keys: `schema`, `training`, `runtime`. Kinds and their options: `kinds`, `options`, `tagged`. Reading and writing:
`load`, `render`. What decides the bits: `identity`. What earlier versions did: `earlier`.
"""
