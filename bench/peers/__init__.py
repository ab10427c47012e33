"""Races inference engines against each other: python -m bench.peers --help."""
