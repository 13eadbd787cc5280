"""MLflow's model registry: register, gate, promote, roll back, fetch. Knows no torch."""
