"""
What a test asserts about the messages that were sent, and how a difference is shown.

Nothing here knows HTTP: it compares messages that the service has kept.
"""
