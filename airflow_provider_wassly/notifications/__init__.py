"""
The notifier, for DAG authors, with the default text of its messages and their delivery against the clock.

What is sent, and how, is the hook's and the client's business.
"""
