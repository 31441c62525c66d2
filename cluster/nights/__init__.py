"""Nights: what a job file's run does on a date, model by model, and whom it tells."""
