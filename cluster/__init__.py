"""A Ray cluster on SLURM nodes: the standard library and shell only; speaks through argv and the
environment.
"""
