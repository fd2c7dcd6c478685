"""The papers' networks and experiments."""
