"""The embedded stack that the demo and the end-to-end tests start."""
