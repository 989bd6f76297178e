"""What a job spec can name: architectures, datasets, tasks, losses, optimizers and lr schedules."""
