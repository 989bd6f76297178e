"""A package, so that its fixtures can last for all of its files: they share one Ray."""
