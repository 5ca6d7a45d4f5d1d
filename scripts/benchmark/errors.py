"""What can go wrong in a benchmark."""


class BenchError(Exception):
    """The message is one line for the user: what is wrong and what to do next."""
