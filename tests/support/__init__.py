"""What several tests share: vectors, namespaces, peers."""
