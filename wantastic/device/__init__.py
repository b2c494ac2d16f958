"""Asyncio glue over the native engine: peers, keys, host interface, UAPI socket.

service.serve(Plan, ...)   a whole process around one interface
device.Device              one tunnel: start, apply by difference, close
netlink, uapi, endpoints   sans-IO: the bytes and the judgements
"""
