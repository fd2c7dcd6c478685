"""The package is known to its own tests alone."""

# Collecting its doctests would import it for all tests.
collect_ignore = ["lottery_extension"]
