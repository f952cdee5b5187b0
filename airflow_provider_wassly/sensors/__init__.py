"""
The sensors, for DAG authors. They work in poke, reschedule and deferrable mode.

Their triggers are in :mod:`airflow_provider_wassly.triggers`; :mod:`airflow_provider_wassly.quota` interprets quota
readings.
"""
