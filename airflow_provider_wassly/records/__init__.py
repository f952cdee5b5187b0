"""
What outlives an attempt of a task: where it is kept, whose it is, and the record of a single message.

The record of a broadcast is built on the same stores, in :mod:`airflow_provider_wassly.broadcast`.
"""
