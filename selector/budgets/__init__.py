"""How many tokens a clip gets: adaptive budgets, what sets them and how they are picked."""
