"""
The triggers of the deferrable sensors, and how many of them share one look.

They send nothing and fail nothing: they wake the task, which decides.
"""
