"""A farm of simulated phones on a virtual clock: the fleet and the pool of the real one, in seconds, seeded."""
