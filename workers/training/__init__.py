"""Training, whatever the model: the epoch loop, data in memory, schedules, checkpoints.

`loop` drives everything and talks to a `context.TrainContext`; what is trained comes in as a
`loop.Learner`. Every random draw follows from (seed, epoch, rank), so a run that is killed and
resumed ends with the weights of an undisturbed one.
"""
