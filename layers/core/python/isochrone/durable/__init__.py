"""What must reach a store although the store may be gone and the process may die: an outbox, and its notes on disk."""
