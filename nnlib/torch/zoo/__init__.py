"""Modules that come with nnjobs: they are part of the product and need no trust."""
