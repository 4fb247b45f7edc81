"""What the bytes of other people's sensors mean: network formats, codecs, profiles. Used by the telemetry worker and the API's test bench.

Three steps that are never mixed: **unwrap** (`sens_payloads.formats`) gives uplinks, **decode** turns a device's bytes into fields, **name**
applies the profile. All of it is pure: no clock, no network, no database.
"""
