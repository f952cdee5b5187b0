"""WhatsApp messages through Wassly, for Apache Airflow."""

__version__ = "0.1.0"
