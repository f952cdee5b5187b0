"""
The Airflow connection: its fields, the forms that show them, and its values in their types.

The hook uses all of it; nothing here makes a call.
"""
