"""See ctypes beside this."""
