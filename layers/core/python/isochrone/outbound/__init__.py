"""Asking addresses that somebody else has named: signing keys of an issuer, notices, callbacks."""
