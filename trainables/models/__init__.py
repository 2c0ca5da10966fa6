"""Models by name or by the user's builder: built, checked, weighted and opened again. Train
nothing.
"""
