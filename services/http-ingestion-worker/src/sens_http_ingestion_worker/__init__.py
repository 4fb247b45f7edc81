"""HTTP to JetStream: answers 2xx only to what the stream has stored."""
