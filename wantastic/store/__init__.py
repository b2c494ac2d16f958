"""Identity and state on flash: atomic writes, torn files recognised.

Store(folder)          identity, state, record(name)
Record                 one value: read(), write(bytes), remove()
StoreError             path, errno, remedy
"""
