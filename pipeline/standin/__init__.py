"""Trains the small VideoMAE that ships with this package, on the rendered action benchmark."""
