"""
The inbox page: its files, and the headers to serve them with.

The page gets its data from the control API.
"""
