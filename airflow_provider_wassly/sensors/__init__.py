"""
The sensors, for DAG authors, in all three modes.

What waits in the triggerer is in :mod:`airflow_provider_wassly.triggers`, what a quota reading means in
:mod:`airflow_provider_wassly.quota`.
"""
