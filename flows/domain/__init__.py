"""The pure core: from counts to a verdict to an action plan. No clock, network, environment or logger."""
