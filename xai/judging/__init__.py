"""Whether maps are to be believed: scores as pure functions of maps, masks and models."""
