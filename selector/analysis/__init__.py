"""What a store tells about token values: distribution and tails."""
