"""One file of an image, from bytes to the pixels that a model sees. Knows neither labels nor
datasets.
"""
