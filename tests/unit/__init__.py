"""Sans-IO and pure tests: no network, no root, no sleeping."""
