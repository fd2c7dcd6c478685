"""The papers' networks, data and experiments."""
