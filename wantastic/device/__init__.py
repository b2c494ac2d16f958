"""Asyncio glue over the native engine: peers, keys, host interface, UAPI socket."""
