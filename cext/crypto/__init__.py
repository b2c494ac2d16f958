"""One seam for AEAD, X25519 and BLAKE2s; batched AEAD of our own, OpenSSL behind it."""
