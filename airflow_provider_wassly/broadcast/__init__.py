"""
Send one message to a list of recipients: read the list, render each message, send at a pace, record, report.

The operator, :mod:`airflow_provider_wassly.operators.broadcast`, only sets up a run and ends it.
"""
