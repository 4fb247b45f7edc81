"""What ``sens verify`` asks an installation from outside and through kubectl.

`environment` says what is asked for, `catalogue` which checks there are, `runner` runs them at once and within a time; each of the other
modules holds the checks of one subject: `names` (DNS), `certificates`, `services` (HTTP), `exposure` (what must not be reachable),
`plaintext` (no plain HTTP), `cluster` (kubectl), `access` (what the account of deployments may do) and `host` (what its Linux user may).
"""
