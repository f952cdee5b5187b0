"""
The hook, for DAG authors: an Airflow connection turned into a client.

It wires the other folders together and decides nothing itself.
"""
