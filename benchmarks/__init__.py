"""Measurements of the product: each prints a table for people and, as its last line, RESULT and JSON."""
