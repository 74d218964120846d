"""Slack listeners, one module per thing a person can do."""
