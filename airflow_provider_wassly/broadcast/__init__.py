"""What a broadcast is made of: the list, the record of who was sent to, the pace, the sending, the report."""
