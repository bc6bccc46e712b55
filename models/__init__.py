"""The engine: networks and everything around one forward pass. Knows neither the host nor the nodes."""
