"""Pure builders: domain objects to Block Kit."""
