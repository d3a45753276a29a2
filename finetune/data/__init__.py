"""Training data: reading it, checking it, cleaning it, splitting it. Knows no model."""
