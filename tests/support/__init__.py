"""What tests of several kinds share: a task, what Airflow keeps of it, a service, a clock, a real Airflow."""
