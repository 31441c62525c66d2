"""Figures of merit: point values, operating points, and intervals by resampling patients."""
