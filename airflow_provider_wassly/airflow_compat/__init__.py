"""
The only place that knows Airflow's versions (2.11 to 3.4) and its private names.

Nothing here knows Wassly; the rest of the package uses these modules instead of checking a version.
"""
