"""Prefect flows of the A/B test of two fraud models, and everything that they decide and do."""
