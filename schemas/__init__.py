"""Contracts of Rayward, light to import: errors, tables, plans, job specs, protocols."""
