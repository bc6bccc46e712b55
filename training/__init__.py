"""Trains the networks and runs the engine without the host: `python -m training --help`."""
