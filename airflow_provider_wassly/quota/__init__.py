"""
The remaining quota: the last reading, the decision whether to wait for more, and the right to probe for a new one.

Nothing here sends or waits: the sensor and its trigger do.
"""

from airflow_provider_wassly.quota.judgement import Verdict, judge
from airflow_provider_wassly.quota.probes import Probes, is_due
from airflow_provider_wassly.quota.reading import Quota, QuotaReading, now

__all__ = ["Probes", "Quota", "QuotaReading", "Verdict", "is_due", "judge", "now"]
