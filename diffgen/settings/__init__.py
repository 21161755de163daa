"""What users may choose: one table, and every door to it."""
