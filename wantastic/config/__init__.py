"""What the operator and the control server asked for: parsed, checked, frozen, compared.

    load_config(path) / parse_config(bytes)  ->  Parsed(config, warnings) or ConfigError
    render_config(config)                    ->  bytes that parse to the same config
    tunnel_of(config, key), diff(running, wanted)  ->  the changes to apply

The values are in model.py; docs/configuration.md describes every field for users.
"""
