"""Accuracy against cost of every way of choosing tokens, on a dataset's videos."""
