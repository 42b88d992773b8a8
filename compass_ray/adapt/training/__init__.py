"""Training: worker groups, the loop that runs on each worker, DeepSpeed, checkpoints, what is reported."""
