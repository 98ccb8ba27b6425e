"""The offline models, converted once from the packages that carry their weights."""
