"""
The triggers of the deferrable sensors. Triggers that wait for the same thing share one check.

A trigger never sends a message or fails a task. It wakes the task, which decides.
"""
