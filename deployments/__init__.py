"""Prefect deployments, the command line and the embedded stack."""
