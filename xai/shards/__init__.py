"""The heatmaps of a run, from the plan of what is missing to their tables; nothing is drawn
here.
"""
