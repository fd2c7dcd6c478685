"""What tickets and stored searches tell: analyses, figures, reports, transfers."""
