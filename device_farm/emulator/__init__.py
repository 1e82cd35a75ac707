"""Emulated phones: adbd's side of the ADB protocol on loopback, for the real adb server (docs/emulated_phones.md)."""
