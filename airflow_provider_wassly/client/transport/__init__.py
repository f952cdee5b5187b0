"""
How a call travels: credentials, the body of a message, the connection, and what of it has left.

Nothing here knows what a message means or what an answer says.
"""
