"""
Files that a DAG gives as a path or URI: find them, check whether they may be sent, open them.

The client knows their types and sends them.
"""
