"""The dataset of a run: its manifest, its image store, and the images of one cell in batches."""
