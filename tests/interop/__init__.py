"""Real peers in network namespaces; root needed."""
