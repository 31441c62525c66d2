"""Studies: the trials of a grid, run side by side and taken up where they stopped."""
