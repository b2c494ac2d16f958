"""What -help prints: at most 80 columns wide, tried in that width by a test."""

from __future__ import annotations

USAGE = """\
Usage: wantasticd -config FILE [-exit-node] [-L FORWARD] [-R FORWARD] [-v]
       wantasticd -config FILE -check [--json]
       wantasticd -status [-interface NAME] [--json]
       wantasticd -auth-url URL | -token TOKEN | -token-file PATH
       wantasticd [-f] NAME
       wantasticd nc [-config FILE] HOST PORT
       wantasticd demo [--seconds N] [--json]
       wantasticd conformance ...
       wantasticd selftest
"""

HELP = f"""\
wantasticd is a WireGuard agent in userspace: it needs no kernel module.

{USAGE}
Run the agent:
  -config FILE      bring up the tunnel that FILE describes; SIGHUP reads it
                    again, SIGTERM takes everything down
  -exit-node        let tunnel peers reach the internet through this device
  -L FORWARD        a port of this host leads into the tunnel; repeatable:
                    [udp/][ADDRESS:]PORT:TARGET:PORT, as in 8443:10.0.0.9:443
  -R FORWARD        a port of our tunnel addresses leads to this host or its
                    network: [udp/]PORT:TARGET:PORT, as in 22:127.0.0.1:22
  -v                log more; twice for every event

Enrol this device with a control server:
  -auth-url URL     show a link and a code, and wait until you approve it
  -token TOKEN      use an enrolment token; "-" reads it from standard input
  -token-file PATH  the same out of a file: other users cannot see it there

Look:
  -check            judge the configuration and end
  -status           show a running agent: peers, traffic, what is wrong
  -interface NAME   of that interface, when several run
  --json            for programs
  -version          print the version
  -help             print this

As wireguard-go does, for wg-quick with
WG_QUICK_USERSPACE_IMPLEMENTATION=wantasticd:
  NAME              make the interface NAME, to be configured by wg; runs behind
  -f                ... in the foreground

Through a running agent's SOCKS5 proxy:
  nc HOST PORT      standard input and output as one connection in the tunnel,
                    as in: ssh -o ProxyCommand="wantasticd nc %h %p" HOST

Try it without root and without a server:
  demo              two devices on this machine, traffic between them, live

For who writes a control server:
  conformance       check a server, one line per rule; "conformance -help"
  selftest          compute known answers of this program's cryptography

One dash or two make no difference. Exit status: 0 done, 2 wrong arguments,
3 wrong configuration, 4 cannot start, 5 no agent runs, 6 it runs but something
is wrong; all of them are in docs/cli.md.
"""
