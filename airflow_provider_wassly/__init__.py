"""Send WhatsApp messages through Wassly from Apache Airflow."""

__version__ = "0.1.0"
