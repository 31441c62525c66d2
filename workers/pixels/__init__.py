"""Computation on single images: decode, hash, check, find scale bars, prepare."""
