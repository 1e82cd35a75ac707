"""Starts and feeds Ray clusters."""
