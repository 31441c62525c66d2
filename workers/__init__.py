"""Computation on bytes, arrays and Arrow tables; knows no job, no lake and no cluster."""
