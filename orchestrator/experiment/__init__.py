"""What one YAML file declares, read, checked and resolved. Knows neither images nor Ray."""
