"""One file a raw format: each gives `Table`s. `nnlib.data.importing.format_registry` knows them all."""
