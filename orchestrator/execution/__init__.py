"""From an experiment to its finished cells: what is left to do, in what order, on which share of
the cluster.
"""
