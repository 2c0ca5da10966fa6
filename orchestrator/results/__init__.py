"""The tables of a run folder, and new images scored by its models. Reads what is done, starts
nothing.
"""
