"""Trains and judges the token selector from a store alone."""
