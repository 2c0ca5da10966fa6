"""A SLURM job from submission to exit code: nodes brought up, the driver beside them, the end."""
