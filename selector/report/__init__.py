"""A store and its evaluations as one page, or as single figures and tables."""
