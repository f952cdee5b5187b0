"""
How a call travels: credentials, request body, connection, and how much of the request was sent.

Nothing here knows what a message means, or decides what an answer says: that is the client's job.
"""
