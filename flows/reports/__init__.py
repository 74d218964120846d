"""Pure rendering of documents from domain objects."""
