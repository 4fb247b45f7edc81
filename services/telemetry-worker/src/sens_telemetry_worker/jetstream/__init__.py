"""NATS JetStream: the stream of envelopes, and the stream of dead letters of versions before 0.2."""
