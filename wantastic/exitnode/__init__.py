"""Exit node: access rules, and what the engine is told of them."""
