"""What a run leaves to be read: figures, page and text, made from the tables of results."""
