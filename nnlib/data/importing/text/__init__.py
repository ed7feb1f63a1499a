"""Text as the input of a dataset: tokenizers, templates over columns, blocks of tokens."""
