"""Stacks only compose: what a thing is stands in infra/constructs/."""
