"""Split-horizon DNS: policy, resolver, cache."""
