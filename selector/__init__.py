"""Stage 2 of LITE Pipeline: train a token selector from the store, select, evaluate."""
