"""Light work: what an edge does itself, without a GPU and with every backend down.

Each task is a module with a `run`; their libraries are imported by who asks first and belong to requirements-light.txt.
"""
