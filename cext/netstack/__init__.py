"""A virtual IP stack: flows, TCP, UDP, ICMP, reassembly, timer wheel; sans-IO."""
