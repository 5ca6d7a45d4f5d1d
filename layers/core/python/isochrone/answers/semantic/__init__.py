"""Answers to questions that mean the same: found cheaply, weighed carefully, and learned from."""
