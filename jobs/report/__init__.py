"""What studies found, as tables: figures from the lake, cells, text."""
