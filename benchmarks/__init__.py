"""Measured ratios: `make bench`, or `python -m benchmarks --only NAME`."""
