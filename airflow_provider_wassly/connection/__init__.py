"""
One Airflow connection: its fields, the forms that show them, and its values as the package uses them.

The hook asks for these; nothing here makes a call.
"""
