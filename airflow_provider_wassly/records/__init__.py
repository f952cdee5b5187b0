"""
What outlives one attempt of a task: the stores, who owns a record, and the record of a single message.

The record of a broadcast uses the same stores; see :mod:`airflow_provider_wassly.broadcast`.
"""
