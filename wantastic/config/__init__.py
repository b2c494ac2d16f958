"""What the operator and the control server asked for: parsed, checked, frozen, compared."""
