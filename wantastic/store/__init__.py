"""Identity and state on flash: atomic writes, torn files recognised."""
