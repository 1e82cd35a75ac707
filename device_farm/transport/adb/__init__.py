"""Phones through an adb server."""
