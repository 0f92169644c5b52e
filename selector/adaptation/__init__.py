"""Adapting a backbone to the tokens that a method leaves it: a few minutes of training."""
