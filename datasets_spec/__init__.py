"""What a dataset is: one YAML each, and the readers of the annotation formats."""
