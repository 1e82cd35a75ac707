"""Plain torch definitions of the networks that are measured."""
