"""The store: records, power cuts, disks that refuse."""
