"""Tests: one package, so that no two of its modules share a name."""
