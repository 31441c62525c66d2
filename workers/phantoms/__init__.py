"""Phantoms: seeded artificial ultrasound, CT and X-ray images with known truth."""

GENERATOR_VERSION = 1
"""Raised when the same seed would give other bytes; part of a corpus' identity."""
