"""What is meant to harm: hostile input, other users of the machine, and what kills a run."""
