"""Streams of questions as the semantic tier would answer them, for the scripts that fit and judge its decision."""
