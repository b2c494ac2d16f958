"""The WireGuard protocol, sans-IO: noise, keypairs, timers, peers, device."""
