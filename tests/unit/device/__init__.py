"""The device room: netlink, UAPI, endpoints, and the glue over a fake engine."""
