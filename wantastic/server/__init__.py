"""The reference control server and gateway; not part of the firmware executable."""
