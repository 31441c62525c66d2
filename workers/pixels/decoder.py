"""The version of the decoders."""

DECODER_VERSION = 1
"""Raised when a file decodes to other pixels than before, or a rejected one to any: rejects of
older versions are then tried again."""
