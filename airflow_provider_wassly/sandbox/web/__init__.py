"""
The inbox page: files for the browser, and the headers that they are served with.

What the page shows comes from the control API.
"""
