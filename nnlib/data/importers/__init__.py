"""One file a raw format: each gives `Table`s. `nnlib.data.sources` knows them all."""
