"""Helpers shared by several kinds of tests: a task, Airflow's stores, a service, a clock, a real Airflow."""
