"""How long a build will take: rates measured on a sample, and a simulation of the run."""
