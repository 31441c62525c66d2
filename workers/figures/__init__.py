"""Pictures of figures of merit, as PNG bytes; matplotlib stands only here."""
