"""A picture of the Grafana dashboard, drawn from what a real Prometheus answers to the dashboard's own queries."""
