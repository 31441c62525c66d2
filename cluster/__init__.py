"""Where it runs: the command, the runner, Ray, the stores and the lake."""
