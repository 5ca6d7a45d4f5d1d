"""Answers made before they are asked for: foresee the asks, plan what pays, generate it in quiet hours."""
