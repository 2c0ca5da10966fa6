"""What launcher, node and doctor all speak of: the allocation, SLURM's commands, a job's folder,
exit codes.
"""
