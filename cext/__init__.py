"""Native hot paths: everything that happens per packet, with the GIL released."""
