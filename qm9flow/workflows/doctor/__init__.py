"""What is wrong with an installation and its records, and what can be done about it."""
