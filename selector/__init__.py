"""Stage 2 of LITE Pipeline: train, select and evaluate from the store; no videos needed to train."""
