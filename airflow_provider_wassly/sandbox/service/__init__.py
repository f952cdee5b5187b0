"""
The stand-in service itself: its API, its faults, what it has received, and the server that it runs on.

How tests and people ask it is in the folders beside this one.
"""
