"""
The notifier, for DAG authors: its default text, and delivery within a fixed time.

Sending itself is the job of the hook and the client.
"""
