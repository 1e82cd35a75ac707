"""The shell of an emulated phone and its commands."""
