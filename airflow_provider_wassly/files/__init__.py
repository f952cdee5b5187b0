"""
Files that a DAG names by a path or URI: where they are, whether they may be sent, how they are opened.

What type a file has, and how it is sent, is the client's business.
"""
