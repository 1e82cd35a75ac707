"""Searches pruning and architecture as one: decides what to try and how good it is."""
