"""The commands of a phone's shell, as far as tools that speak adb use them. Each returns its exit status."""

from device_farm.emulator.shell.commands import built_in, files, find, processes, system, testing, text
from device_farm.emulator.shell.commands.registry import BUILT_IN, COMMANDS

__all__ = ["BUILT_IN", "COMMANDS", "built_in", "files", "find", "processes", "system", "testing", "text"]
