"""Signed tokens (JWT) in place of keys: who signs them, with which keys, and what their claims mean here.

Only an edge with an `[[issuer]]` imports what is in here: the libraries for signatures cost it time and memory.
"""
