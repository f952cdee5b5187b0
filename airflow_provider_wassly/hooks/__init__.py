"""
The hook, for DAG authors: it turns an Airflow connection into a client.

It connects the other folders and decides nothing itself.
"""
