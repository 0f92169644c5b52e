"""Methods that choose before the first block: they score tokens, and the best are kept."""
