"""Which clips, made from what: the plan, the views, and the inputs of a run."""
