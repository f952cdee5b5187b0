"""
One message to a whole list: reading the list, sending at a pace, recording who was sent to, reporting.

No Airflow operator: that is :mod:`airflow_provider_wassly.operators.broadcast`, which only sets a run up and ends it.
"""
