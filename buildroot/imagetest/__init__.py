"""`make image-test`: a firmware with the executable on an emulated router, offline.

The kernels and busybox are Debian's for the router's CPU; the root file system is squashfs with an
overlay on a small ext4 "flash"; the init script is the Buildroot package's. The machine has
64 MB and two network cards on taps in two network namespaces, WAN and LAN.

    boards.py     what differs between the machines
    firmware.py   fetches the packages, makes the images
    machine.py    the namespaces, the emulator, its console
    __main__.py   the scenarios
"""
