"""One module per file format: each opens files as `Table`s. `nnlib.data.importing.format_registry` lists them."""
