"""One Ray node on one host: ports, folders, network, its processes until none is left. Knows no
other node.
"""
