"""Ways to explain a logit of one opened model: images in, signed maps out. Know neither runs nor
files.
"""
