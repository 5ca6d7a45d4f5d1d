"""One idea each; the stacks put them together."""
