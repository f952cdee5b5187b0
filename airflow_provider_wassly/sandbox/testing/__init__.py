"""
Assertions about the messages that were sent, and how they show a difference.

Nothing here uses HTTP: it compares the stored messages.
"""
