"""
The remaining quota: the last reading, what it means to somebody who waits for more, and probes that fetch a new one.

What sends messages, or waits, is not here: the sensor and its trigger do.
"""

from airflow_provider_wassly.quota.judgement import Verdict, judge
from airflow_provider_wassly.quota.probes import Probes, is_due
from airflow_provider_wassly.quota.reading import Quota, QuotaReading, now

__all__ = ["Probes", "Quota", "QuotaReading", "Verdict", "is_due", "judge", "now"]
