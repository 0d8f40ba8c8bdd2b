"""Students: the networks that are taught, and the space of them that is searched."""
