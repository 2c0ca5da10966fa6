"""`python -m cluster.doctor`: would a Ray cluster work here? Measures and changes nothing."""
