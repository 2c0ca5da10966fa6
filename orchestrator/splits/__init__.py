"""Test set, folds and validation parts as pure functions over tables, and the proof that nothing
leaks.
"""
