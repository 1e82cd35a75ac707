"""A search from its first to its last second: its directory, its staff on Ray, resume, shipping, verification."""
