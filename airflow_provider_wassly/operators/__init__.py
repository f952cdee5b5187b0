"""
The operators, for DAG authors, and what all Wassly tasks share.

Broadcasts are implemented in :mod:`airflow_provider_wassly.broadcast`, records of attempts in
:mod:`airflow_provider_wassly.records`.
"""
