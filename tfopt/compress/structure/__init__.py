"""Smaller structures: importance, search, slicing, and fitting what is left."""
