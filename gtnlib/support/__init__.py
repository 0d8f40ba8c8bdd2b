"""What every room leans on: errors, files, seeds, identity of runs, jobs, processes, precision."""
