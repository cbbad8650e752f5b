"""Output for people: plans, status, logs, failures, efficiency."""
