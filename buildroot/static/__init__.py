"""Builds `wantasticd` as one fully static executable; docs/building.md tells how and why.

Every stage is a function from named inputs to a folder in the cache. Order, with the file of each:

    sources    pinned archives, fetched once, verified by hash            sources.py
    toolchain  CC, CXX, AR, RANLIB under fixed names on PATH              toolchain.py
    zlib, openssl, cpython    the C libraries, as archives      one file each
    rooms      cext/: the C library and the Cython modules                rooms.py
    protobuf, pycryptodome, grpc    native parts of others      one file each
    nuitka     every Python module turned into C or bytecode              nuitka.py
    link       one executable, its symbols beside it                      link.py
"""
