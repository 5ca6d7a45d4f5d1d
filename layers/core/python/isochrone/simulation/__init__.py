"""A model of the world that the router works in, to see how it chooses: `isochrone simulate`.

The planning code is the one that edges run; clients, networks and engines are simulated (docs/simulation.md). Nothing
here is part of an edge: the Lambda layer leaves this folder out.
"""
