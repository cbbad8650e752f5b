"""What is recorded of tasks, and read back."""
