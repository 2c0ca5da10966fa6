"""What images a dataset has, by folders, tables or phantoms, with labels and groups. Decodes
nothing itself.
"""
