"""
The operators, for DAG authors, and what Wassly's tasks have in common.

What a broadcast does is in :mod:`airflow_provider_wassly.broadcast`, what an attempt records in
:mod:`airflow_provider_wassly.records`.
"""
