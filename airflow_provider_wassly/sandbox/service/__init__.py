"""
The simulated service: its API, its faults, the messages it has received, and its server.

The neighbouring folders hold the ways for tests and people to inspect it.
"""
