"""What the SENS Platform services share: the wire contract, names, errors, settings, logs, metrics and lifecycle."""
