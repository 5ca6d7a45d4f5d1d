"""What can go wrong when the local edition starts."""


class LocalError(Exception):
    """The message is one line for the user: what is wrong and what to do next."""
