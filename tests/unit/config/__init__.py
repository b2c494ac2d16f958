"""The configuration room: file, values, differences."""
